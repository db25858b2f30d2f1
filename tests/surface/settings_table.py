"""The table of docs/settings.md, made from the settings themselves."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from runtide.cli.settings import Settings


def table() -> list[str]:
    """Lines of Markdown, one for each variable."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            lines += [line(f"{name}_{inner}", nested) for inner, nested in kind.model_fields.items()]
        else:
            lines.append(line(name, field))
    return lines


def line(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    shown = "" if default in (None, "", {}) else f"`{default}`"
    return f"| `RUNTIDE_{name.upper()}` | {shown} | {field.description} |"
