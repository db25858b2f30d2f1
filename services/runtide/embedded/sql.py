"""Enough of ClickHouse's lexer to answer four questions about a statement: what kind it is, where the data of an INSERT
begins, which format it asks for, and whether a stranger may run it.

It works on bytes, so that offsets are positions in the request. It does not parse: the engine does. Where this lexer
and the engine's could disagree (here-documents, signs outside of ASCII, escapes in quoted names) the read-only user is
refused, so that no text can hide a function from the check.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from runtide.embedded.errors import ACCESS_DENIED, INTO_OUTFILE_NOT_ALLOWED, READONLY, SYNTAX_ERROR, ServerError

_TOKEN = re.compile(
    rb"""
      (?P<space>\s+|--[^\n]*|\#[\x20!][^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<string>'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<quoted>`(?:[^`\\]|\\.|``)*(?:`|\Z)|"(?:[^"\\]|\\.|"")*(?:"|\Z))
    | (?P<word>[A-Za-z0-9_][A-Za-z0-9_$]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
# Table functions that only make rows or read tables; every other one reaches files, the network or this process.
SAFE_TABLE_FUNCTIONS = frozenset(
    {
        "format",
        "fuzzjson",
        "generaterandom",
        "generateseries",
        "generate_series",
        "merge",
        "mergetreeindex",
        "mergetreeprojection",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "values",
        "view",
        "viewexplain",
        "viewifpermitted",
        "zeros",
        "zeros_mt",
    }
)
# Refused as a name anywhere, because a function may be passed by its name (APPLY file, arrayMap(file, ...)).
_FORBIDDEN_NAMES = frozenset((b"file", b"catboostevaluate"))
_CALLS_MODELS = frozenset(b"airedact aisimilarity aifilter aiclassify aiembed aiextract aigenerate aitranslate".split())
_NOT_FOR_READERS = frozenset(b"KILL BACKUP RESTORE CHECK EXECUTE SYSTEM COPY UNDROP".split())
_STREAMED = frozenset((b"SELECT", b"WITH", b"FROM", b"("))


class Kind(Enum):
    """What a request asks for."""

    READ = "read"
    INSERT = "insert"
    OTHER = "other"


@dataclass(frozen=True)
class Token:
    """One significant token; `upper` is its text in capitals when it is a bare word, else its text."""

    kind: str
    text: bytes
    start: int
    end: int

    @property
    def upper(self) -> bytes:
        """The word in capitals, for keywords."""
        return self.text.upper() if self.kind == "word" else self.text


@dataclass(frozen=True)
class Insert:
    """An INSERT with data behind it: `head` is the statement without FORMAT, `data_start` the offset of its data."""

    head: bytes
    format: str
    data_start: int


def tokens(text: bytes, start: int = 0) -> Iterator[Token]:
    """Yield the significant tokens lazily, so that data behind an INSERT is never looked at."""
    for found in _TOKEN.finditer(text, start):
        kind = found.lastgroup or "other"
        if kind != "space":
            yield Token(kind, found.group(), found.start(), found.end())


def first_word(text: bytes) -> bytes:
    """The statement's first token in capitals; empty when there is none."""
    for token in tokens(text):
        return token.upper
    return b""


def split_insert(text: bytes) -> Insert | None:
    """Cut an INSERT at its data; None when the statement is no INSERT or takes its rows from a SELECT."""
    stream = tokens(text)
    token = next(stream, None)
    if token is None or token.upper != b"INSERT":
        return None
    depth = 0
    named = False  # the table's name may itself be `format` or `values`
    previous = token
    for token in stream:
        word = token.upper
        if token.text in (b"(", b"["):
            depth += 1
            if depth == 1 and not named:
                named = True
        elif token.text in (b")", b"]"):
            depth -= 1
        elif depth == 0 and token.kind == "word":
            if not named:
                named = word not in (b"INTO", b"TABLE", b"FUNCTION")
            elif previous.text == b".":
                pass
            elif word in (b"SELECT", b"WITH", b"FROM", b"WATCH", b"EXPLAIN"):
                return None
            elif word == b"VALUES":
                return Insert(text[: token.start].rstrip(), "Values", token.end)
            elif word == b"FORMAT":
                name = next(stream, None)
                if name is None or name.kind != "word":
                    return None
                return Insert(text[: token.start].rstrip(), name.text.decode(), _skip_to_data(text, name.end))
        elif depth == 0 and token.kind == "quoted":
            named = True
        elif depth == 0 and token.text == b";":
            if next(stream, None) is not None:
                return None
            break
        if token.upper == b"SELECT" and depth == 1 and named and previous.text == b"(":
            return None
        previous = token
    head = text.rstrip().rstrip(b";").rstrip()
    return Insert(head, "", len(text)) if named else None


def _skip_to_data(text: bytes, at: int) -> int:
    """Data begins behind the blanks and at most one line end that follow the format's name, as in the server."""
    while text[at : at + 1] in (b" ", b"\t", b"\f"):
        at += 1
    if text[at : at + 1] == b";":
        at += 1
    if text[at : at + 1] == b"\r":
        at += 1
    if text[at : at + 1] == b"\n":
        at += 1
    return at


@dataclass(frozen=True)
class Statement:
    """A statement as far as the front needs to know it."""

    text: bytes
    words: tuple[Token, ...]
    kind: Kind
    format: str
    streamable: bool


def read_statement(text: bytes) -> Statement:
    """Look at a statement without inline data.

    Raises: ServerError for several statements in one request and for INTO OUTFILE, which a server refuses over HTTP.
    """
    words = tuple(tokens(text))
    if all(token.text == b";" for token in words):
        raise ServerError(SYNTAX_ERROR, "Syntax error: failed at position 1 (end of query): . Empty query")
    _refuse_several(text, words)
    for before, token in itertools.pairwise(words):
        if before.upper == b"INTO" and token.upper == b"OUTFILE":
            raise ServerError(INTO_OUTFILE_NOT_ALLOWED, "INTO OUTFILE is not allowed")
    first = words[0].upper
    format_ = ""
    for before, token in itertools.pairwise(words):
        if before.upper == b"FORMAT" and token.kind == "word":
            format_ = token.text.decode("utf-8", "replace")
    totals = any(a.upper == b"WITH" and b.upper == b"TOTALS" for a, b in itertools.pairwise(words))
    kind = Kind.INSERT if first == b"INSERT" else Kind.READ if first in _STREAMED else Kind.OTHER
    inserts = any(token.upper == b"INSERT" for token in words)
    return Statement(text, words, kind, format_, first in _STREAMED and not totals and not inserts)


def _refuse_several(text: bytes, words: tuple[Token, ...]) -> None:
    for index, token in enumerate(words):
        if token.kind == "other" and token.text == b";" and any(later.text != b";" for later in words[index + 1 :]):
            rest = text[token.start : token.start + 200].decode("utf-8", "replace")
            raise ServerError(
                SYNTAX_ERROR,
                "Syntax error (Multi-statements are not allowed): "
                f"failed at position {token.start + 1} (end of query): {rest}",
            )


def refuse_for_reader(statement: Statement, parameters: Iterable[str], unsafe: frozenset[bytes]) -> None:
    """Refuse what `readonly = 1` of the engine lets through although a stranger must not do it.

    `unsafe` are the names of table functions that reach out (`unsafe_table_functions`).
    Raises: ServerError with the code of a server that refuses it.
    """
    words = statement.words
    if words[0].upper in _NOT_FOR_READERS:
        raise ServerError(READONLY, "default: Cannot execute query in readonly mode.")
    for index, token in enumerate(words):
        if token.kind in ("word", "quoted"):
            called = index + 1 < len(words) and words[index + 1].text == b"("
            _refuse_name(token, unsafe if called else frozenset())
        elif token.kind == "other" and (token.text == b"$" or not 0x20 < token.text[0] < 0x7F):
            raise _denied("The read-only user may use here-documents and signs outside of ASCII only within quotes.")
    if any(token.upper == b"IDENTIFIER" for token in words):
        for value in parameters:
            for token in tokens(value.encode()):
                _refuse_name(token, unsafe)


def _refuse_name(token: Token, unsafe: frozenset[bytes]) -> None:
    name = token.text
    if token.kind == "quoted":
        if b"\\" in name:
            raise _denied("The read-only user may not use escapes in quoted names.")
        name = name[1:-1]
    lowered = name.lower()
    if lowered in _FORBIDDEN_NAMES or lowered in unsafe:
        raise _denied(f"The read-only user may not use {name.decode('utf-8', 'replace')}.")


def _denied(why: str) -> ServerError:
    return ServerError(ACCESS_DENIED, f"default: Not enough privileges. {why}")


def unsafe_table_functions(known: Iterable[str]) -> frozenset[bytes]:
    """The engine's table functions that are not known to be safe, with the functions that call models elsewhere."""
    return _CALLS_MODELS | {name.lower().encode() for name in known if name.lower() not in SAFE_TABLE_FUNCTIONS}
