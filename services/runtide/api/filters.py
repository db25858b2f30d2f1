"""Filters and orders of runs, written as SQL expressions.

Beside the columns of the view runs they may name

    config.lr  config.model.depth  config.`a key`     a key of the configuration
    summary.`val/acc`                                 a key of the summary
    last('val/acc')  min(...)  max(...)  mean(...)    a metric over all ranks
    best('val/acc')  value('val/acc')                 as define_metric says: the best, the one that stands for the run

A key is a number, unless it is compared with a quoted text, a {parameter:String} or true and false. What a run does not
have is NULL. A text is one expression: it cannot end the place where it is put, and holds no statement of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from runtide.wire.errors import BadInput

FUNCTIONS = ("last", "min", "max", "mean", "best", "value")
"""What can be asked of a metric; all of them are columns of the view run_metrics."""

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>--|\#|/\*)
    | (?P<string>'(?:[^'\\]|\\.|'')*')
    | (?P<quoted>`[^`\\]*`|"[^"\\]*")
    | (?P<parameter>\{\s*\w+\s*:\s*[\w(), ]+\})
    | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)
    | (?P<word>[^\W\d]\w*)
    | (?P<other><=|>=|!=|<>|==|\|\||::|->|[-+*/%=<>().,\[\]?:])
    """,
    re.VERBOSE,
)
_STATEMENTS = frozenset(
    {"SELECT", "FROM", "WHERE", "UNION", "EXCEPT", "INTERSECT", "SETTINGS", "FORMAT", "INTO", "LIMIT", "WITH", "HAVING"}
)
_COMPARES = frozenset({"=", "==", "!=", "<>", "<", ">", "<=", ">=", ",", "NOT", "IN", "LIKE", "ILIKE", "BETWEEN"})
_OPENS = frozenset({"(", "["})


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind == "word" else self.text


@dataclass
class Wanted:
    """The metric values that expressions name, each with the column that will hold it."""

    columns: dict[tuple[str, str], str] = field(default_factory=dict)
    """(function, metric) to the column's name."""

    def column(self, function: str, metric: str) -> str:
        """Name of the column for this value."""
        return self.columns.setdefault((function, metric), f"metric_value_{len(self.columns)}")


def literal(text: str) -> str:
    """A text as SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def expression(text: str, wanted: Wanted, what: str = "filter") -> str:
    """The SQL of a filter, and its metrics added to `wanted`. Raises BadInput for what is not one expression."""
    return _Reader(_tokens(text, what), wanted, ordering=False).sql()


def ordering(text: str, wanted: Wanted) -> str:
    """The SQL of an order: expressions with ASC or DESC, joined by commas; keys by number, then by text."""
    return _Reader(_tokens(text, "order"), wanted, ordering=True).sql()


def _tokens(text: str, what: str) -> list[_Token]:
    found: list[_Token] = []
    at, depth = 0, []
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup == "comment":
            raise BadInput(what, repr(text), f"at {text[at : at + 12]!r} it is not an SQL expression")
        at = match.end()
        token = _Token(str(match.lastgroup), match.group())
        if token.kind == "space":
            continue
        if token.text in _OPENS:
            depth.append({"(": ")", "[": "]"}[token.text])
        elif token.text in {")", "]"} and (not depth or depth.pop() != token.text):
            raise BadInput(what, repr(text), "its brackets do not match")
        if token.kind == "word" and token.upper in _STATEMENTS and not (found and found[-1].text == "."):
            raise BadInput(what, repr(text), f"{token.text} does not belong into an expression; sql() takes statements")
        found.append(token)
    if depth or not found:
        raise BadInput(what, repr(text), "its brackets do not match" if depth else "it must say something")
    return found


class _Reader:
    """Goes through the tokens once."""

    def __init__(self, tokens: Sequence[_Token], wanted: Wanted, ordering: bool) -> None:
        self._tokens = tokens
        self._wanted = wanted
        self._ordering = ordering

    def sql(self) -> str:
        out: list[str] = []
        at = 0
        while at < len(self._tokens):
            token = self._tokens[at]
            end = at + 1
            if token.kind == "word" and token.text in {"config", "summary"} and self._text(end) == ".":
                end, key = self._key(end)
                out.append(self._value(token.text, key, at, end))
            elif token.kind == "word" and token.text.lower() in FUNCTIONS and self._calls_metric(end):
                metric = _unquoted(self._tokens[end + 1].text)
                out.append(self._wanted.column(token.text.lower(), metric))
                end += 3
            else:
                out.append(token.text)
            at = end
        return " ".join(out).replace(" . ", ".")

    def _text(self, at: int) -> str:
        return self._tokens[at].upper if 0 <= at < len(self._tokens) else ""

    def _calls_metric(self, at: int) -> bool:
        inside = self._tokens[at + 1 : at + 2]
        return self._text(at) == "(" and self._text(at + 2) == ")" and bool(inside) and inside[0].kind == "string"

    def _key(self, at: int) -> tuple[int, str]:
        """The key that begins with the dot here, and where it ends."""
        parts = []
        while self._text(at) == "." and at + 1 < len(self._tokens) and self._tokens[at + 1].kind in {"word", "quoted"}:
            name = self._tokens[at + 1]
            parts.append(name.text[1:-1] if name.kind == "quoted" else name.text)
            at += 2
        if not parts:
            raise BadInput("key", self._text(at - 1), "a dot is followed by a name, in `backticks` where it is no word")
        return at, ".".join(parts)

    def _value(self, column: str, key: str, start: int, end: int) -> str:
        """A key of a JSON column in the type that what stands beside it asks for."""
        number, words = (_typed(column, key, kind) for kind in ("Float64", "String"))
        after = self._text(end)
        if after == "IS":
            return f"nullIf(nullIf(JSONExtractRaw({column}, {literal(key)}), ''), 'null')"
        alone = start == 0 or self._text(start - 1) == ","
        if self._ordering and alone and after in {"", ",", "ASC", "DESC", "NULLS"}:
            return f"{number} {after if after in {'ASC', 'DESC'} else ''}, {words}"
        beside = self._beside(start, end)
        if beside == "Float64":
            return number
        return words if beside == "String" else _typed(column, key, beside)

    def _beside(self, start: int, end: int) -> str:
        """Type of the value that stands on the other side of a comparison."""
        for first, way in ((end, 1), (start - 1, -1)):
            at = first
            while self._text(at) in _COMPARES | _OPENS:
                if self._text(at) in {"LIKE", "ILIKE"}:
                    return "String"
                at += way
            if at == first or not 0 <= at < len(self._tokens):
                continue
            token = self._tokens[at]
            if token.kind == "string" or (token.kind == "parameter" and "String" in token.text):
                return "String"
            if token.upper in {"TRUE", "FALSE"}:
                return "Bool"
        return "Float64"


def _typed(column: str, key: str, kind: str) -> str:
    return f"JSONExtract({column}, {literal(key)}, 'Nullable({kind})')"


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1].replace("''", "'"))
