"""Secrets in what a job says about itself: hidden by the name that they have, or by the shape that they are known by.

Used for configuration and summary, the command line, and the git remote. Numbers are never hidden (max_tokens), and
neither is what a job logs or prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from runtide.sdk.values import MAX_DEPTH, as_mapping, plain

MASK = "***"

_NAME = re.compile(r"passw(or)?d|passphrase|secret|api_?key|access_?key|private_?key|credential|authorization")
_TOKENIZER = frozenset(["pad", "eos", "bos", "unk", "mask", "cls", "sep", "special", "image", "video", "audio", "type"])

# Every pattern begins at the edge of a word and has bounded parts, so that no text makes it slow.
_SHAPES = (
    re.compile(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL
    ),
    re.compile(
        r"(?<=\bBearer )[\w.~+/=-]{6,}|(?<=\bbearer )[\w.~+/=-]{16,}|(?<=\bBasic )(?=[a-z]*[A-Z\d=])[\w+/=-]{12,}"
    ),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abeprs]-|npm_|pypi-|AIza)[\w-]{16,}"),
    re.compile(r"\bruntide_[0-9a-f]{12}_[\w-]{20,}"),
    re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*"),
)
_USERINFO = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://)([^\s/@]{1,1000})@")
_SAID = re.compile(r"""(?<![\w.-])([\w.-]{1,100})["']?\s{0,4}[=:]\s{0,4}["']?""")
"""A name that a value follows: password=x, "api_key": "x", ?token=x."""
_VALUE = re.compile(r"""[^\s&;,'"]+""")


def is_secret(name: str) -> bool:
    """Whether a name is that of a secret. A tokenizer's pad_token and its like are none."""
    spread = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().replace("-", "_").replace(" ", "_")
    if _NAME.search(spread):
        return True
    words = re.split(r"[._/]", spread)
    return ("token" in words or "apitoken" in words) and not _TOKENIZER.intersection(words)


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


def mask_text(text: str) -> str:
    """Hide what looks like a secret in a text."""
    for shape in _SHAPES:
        text = shape.sub(MASK, text)
    return _without_said(_USERINFO.sub(_without_password, text))


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


def without_user(url: str) -> str:
    """A URL without the user and password before its host."""
    return mask_text(_USERINFO.sub(r"\1", url))


def _without_said(text: str) -> str:
    parts, at = [], 0
    for found in _SAID.finditer(text):
        if found.start() >= at and is_secret(found[1]) and (value := _VALUE.match(text, found.end())):
            parts += [text[at : found.end()], MASK]
            at = value.end()
    return "".join([*parts, text[at:]])


def _without_password(found: re.Match[str]) -> str:
    """Over http a user alone is a token; elsewhere, as in ssh://git@host, it is a name."""
    if ":" in found[2] or found[1].lower().startswith("http"):
        return f"{found[1]}{MASK}@"
    return found[0]
