"""Secrets in what a job says about itself: hidden by the name that they have, or by the shape that they are known by.

Used for configuration and summary, the command line, and the git remote. Numbers are never hidden (max_tokens), and
neither is what a job logs or prints. What a secret is stands in `runtide.wire.secrets`.
"""

from __future__ import annotations

from collections.abc import Iterable

from runtide.sdk.values import MAX_DEPTH, as_mapping, plain
from runtide.wire.secrets import MASK, is_secret, mask_text, without_user

__all__ = ["MASK", "is_secret", "mask", "mask_command", "mask_text", "without_user"]


def mask(name: str, value: object, depth: int = 0) -> object:
    """Hide what is secret in a value: all texts under the name of a secret, else what looks like one.

    What would be written as text, such as bytes and objects, is that text here already.
    """
    if isinstance(value, str):
        return (value and MASK) if is_secret(name) else mask_text(value)
    if isinstance(value, int | float) or value is None:
        return value
    if depth >= MAX_DEPTH:
        return MASK
    if (mapping := as_mapping(value)) is not None:
        return {key: mask(f"{name}.{key}", item, depth + 1) for key, item in mapping.items()}
    if isinstance(value, list | tuple):
        return [mask(name, item, depth + 1) for item in value]
    return mask(name, plain(value), depth + 1)


def mask_command(arguments: Iterable[str]) -> list[str]:
    """Hide secrets of a command line: --api-key=x, --api-key x, db.password=x, and what looks like one anywhere."""
    masked: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if hide_next and not argument.startswith("--"):
            masked.append(MASK)
            hide_next = False
            continue
        secret = " " not in name and is_secret(name.lstrip("-"))
        hide_next = secret and not equals and argument.startswith("-")
        masked.append(f"{name}={MASK}" if secret and value else mask_text(argument))
    return masked
