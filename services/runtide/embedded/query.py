"""One request's work on the engine: a plan (pure), then `first` and `next`, which block and are called in threads."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from runtide.embedded import formats, native
from runtide.embedded.engine import Engine
from runtide.embedded.errors import READONLY, SYNTAX_ERROR, TOO_MANY_ROWS_OR_BYTES, ServerError, from_engine
from runtide.embedded.limits import QueryLimits
from runtide.embedded.request import READER, Request
from runtide.embedded.settings import for_reader, from_parameters
from runtide.embedded.sql import Insert, Kind, Statement, read_statement, refuse_for_reader, split_insert

# Headers wait for this many bytes, as the buffer of a server does: an error before them still has its own status.
_FIRST_BYTES = 256 * 1024
# A request's query is looked for in this much of its body; what follows can only be data.
_QUERY_BYTES = 1024 * 1024
_ONE_BLOCK = {"min_insert_block_size_rows": "0", "min_insert_block_size_bytes": "0"}
_GATHERED = {"min_insert_block_size_rows": "1000000000", "min_insert_block_size_bytes": "100000000000"}


@dataclass(frozen=True)
class Plan:
    """What will be done for a request."""

    statement: Statement | None
    insert: Insert | None
    data: bytes
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    database: str
    readonly: int
    format: str
    revision: int
    stream: bool
    tag: str

    @property
    def cancel_when_left(self) -> bool:
        """Whether nobody wants the work when the client has gone: reads only, as in a server."""
        return self.statement is not None and self.statement.kind is Kind.READ


def make_plan(request: Request, user: str, engine: Engine, limits: QueryLimits) -> Plan:
    """Decide what to do, and refuse what may not be done.

    Raises: ServerError.
    """
    settings = from_parameters(request.parameters)
    if user == READER:
        settings = for_reader(settings, limits)
        readonly = 1
    else:
        readonly = int(settings.pop("readonly", "0") in ("1", "2")) * 2
        if request.method == "GET":
            readonly = 2
    insert, data, text = _split(request)
    parameters = request.query_parameters
    statement = None if insert else read_statement(text)
    if insert and parameters and insert.format == "Values":
        insert, statement = None, read_statement(text)  # the engine knows parameters in the text of a query only
    if user == READER and statement:
        refuse_for_reader(statement, parameters.values(), engine.unsafe)
    if insert and readonly:
        raise _readonly(request.method, user)
    if insert:
        settings = {"async_insert": "0", "max_insert_block_size": "1000000000", **_blocks(insert, data), **settings}
    elif not readonly:
        settings = {"async_insert": "0", **settings}
    format_name = (statement.format if statement else "") or request.default_format or formats.DEFAULT
    stream = bool(statement and statement.streamable and not request.flag("wait_end_of_query"))
    if settings.get("output_format_json_array_of_rows", "0") != "0" or settings.get("extremes", "0") != "0":
        stream = False
    is_native = format_name.lower() == "native"
    revision = native.read_revision(request.parameters.get("client_protocol_version", "")) if is_native else 0
    tag = f"runtide-{secrets.token_hex(8)}"
    return Plan(
        statement,
        insert,
        data,
        settings,
        parameters,
        request.database,
        readonly,
        format_name,
        revision,
        stream and formats.joiner(format_name) is not None,
        tag,
    )


def _readonly(method: str, user: str) -> ServerError:
    more = ""
    if method == "GET" and user != READER:
        more = " For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries."
    return ServerError(READONLY, f"{user}: Cannot execute query in readonly mode.{more}")


def _split(request: Request) -> tuple[Insert | None, bytes, bytes]:
    """Where the query ends and its data begins, over URL and body."""
    url = request.url_query.encode()
    body = request.body
    if request.form:
        body = b""
    if url.strip():
        insert = split_insert(url)
        if insert:
            inline = url[insert.data_start :]
            data = inline + (b"\n" if inline and body else b"") + body
            return insert, data, url + (b"\n" + body if body else b"")
        text = url + b"\n" + body if body else url
        return None, b"", text
    insert = split_insert(body if len(body) <= _QUERY_BYTES else body[:_QUERY_BYTES])
    if insert:
        return insert, body[insert.data_start :], body
    return None, b"", body


def _blocks(insert: Insert, data: bytes) -> Mapping[str, str]:
    """Settings that make one block, so one part, of the whole body; a body that is one block already is not copied."""
    if insert.format.lower() == "arrowstream" and _is_one_batch(data):
        return _ONE_BLOCK
    return _GATHERED


def _is_one_batch(data: bytes) -> bool:
    try:
        with pa.ipc.open_stream(pa.BufferReader(data)) as reader:
            reader.read_next_batch()
            reader.read_next_batch()
    except StopIteration:
        return True
    except pa.ArrowException:
        return False  # the engine says what is wrong with it
    return False


@dataclass(frozen=True)
class Answer:
    """The beginning of an answer; `finished` when it is all of it."""

    chunk: bytes
    finished: bool
    summary: str


class Query:
    """A plan being carried out. One thread at a time; `close` always."""

    def __init__(self, engine: Engine, plan: Plan, limits: QueryLimits) -> None:
        self._engine, self._plan, self._limits = engine, plan, limits
        self._connection: Any = None
        self._stream: Any = None
        self._joiner = formats.joiner(plan.format)
        self._started = time.monotonic_ns()
        self._turn = threading.Lock()  # a cancelled request closes while its step still runs in another thread

    def first(self) -> Answer:
        """Do the work up to the first bytes of the answer.

        Raises: ServerError.
        """
        with self._turn:
            return self._first()

    def _first(self) -> Answer:
        plan = self._plan
        self._connection = self._engine.connection(plan.settings, plan.database, plan.readonly, plan.tag)
        try:
            if plan.insert:
                return self._insert(plan.insert)
            return self._begin_stream() if plan.stream else self._whole()
        except ServerError:
            raise
        except Exception as error:  # the binding raises RuntimeError, ChdbError and their causes alike
            raise from_engine(error) from error

    def next(self) -> bytes | None:
        """The next bytes, None behind the last.

        Raises: ServerError when the engine fails in the middle.
        """
        with self._turn:
            return self._next()

    def _next(self) -> bytes | None:
        if self._stream is None:
            return None  # closed by now
        try:
            chunk = self._stream.fetch()
        except Exception as error:
            raise from_engine(error) from error
        if chunk is not None:
            assert self._joiner is not None
            return native.revise(self._joiner.add(chunk.bytes()), self._plan.revision)
        return None

    def end(self) -> bytes:
        """What closes a streamed document."""
        return self._joiner.end() if self._joiner else b""

    def close(self) -> None:
        """Free the connection; a query still running on it is cancelled."""
        with self._turn:
            if self._stream is not None:
                self._stream.cancel()
            if self._connection is not None:
                self._connection.close()
            self._stream = self._connection = None

    def _text(self) -> str:
        assert self._plan.statement is not None
        try:
            return self._plan.statement.text.decode().rstrip().rstrip(";")
        except UnicodeDecodeError as error:
            raise ServerError(SYNTAX_ERROR, f"Syntax error: the query is not UTF-8: {error}") from error

    def _insert(self, insert: Insert) -> Answer:
        plan = self._plan
        if plan.parameters:
            pairs = ", ".join(f"param_{name} = '{value}'" for name, value in _quoted(plan.parameters).items())
            self._connection.query(f"SET {pairs}")
        name = insert.format or (plan.format if plan.format != formats.DEFAULT else "Values")
        before = self._engine.known_failures
        with self._connection.send_insert(insert.head.decode(), name) as inserter:
            if plan.data:
                inserter.append(plan.data)
            done = inserter.finish()
        # finish() says nothing of what fails when the last block is written, a full disk for one. So an error that has
        # come up meanwhile, in this insert or beside it, makes the result unknown, and that has to be said.
        for code, count in self._engine.failures().items():
            if count > before.get(code, 0):
                raise self._engine.failure(code)
        return Answer(b"", True, self._summary(written_rows=done.rows_written, written_bytes=done.bytes_written))

    def _whole(self) -> Answer:
        done = self._connection.query(self._text(), self._plan.format, params=dict(self._plan.parameters))
        if done.size() > self._limits.max_buffered_result_bytes:
            raise ServerError(
                TOO_MANY_ROWS_OR_BYTES,
                f"The result has {done.size()} bytes, more than {self._limits.max_buffered_result_bytes} "
                f"(max_buffered_result_bytes) in the format {self._plan.format}; "
                "use one that streams, as JSONEachRow or ArrowStream",
            )
        inserted = self._plan.statement is not None and self._plan.statement.kind is Kind.INSERT
        written = {"written_rows": done.rows_written(), "written_bytes": done.bytes_written()} if inserted else {}
        summary = self._summary(
            read_rows=done.storage_rows_read(),
            read_bytes=done.storage_bytes_read(),
            result_rows=0 if inserted else done.rows_read(),
            result_bytes=done.size(),
            **written,
        )
        return Answer(native.revise(done.bytes(), self._plan.revision), True, summary)

    def _begin_stream(self) -> Answer:
        text, plan = self._text(), self._plan
        self._stream = self._connection.send_query(text, plan.format, params=dict(plan.parameters))
        chunks: list[bytes] = []
        size = 0
        while size < _FIRST_BYTES:
            chunk = self._next()
            if chunk is None:
                return self._finish_early(chunks)
            chunks.append(chunk)
            size += len(chunk)
        return Answer(b"".join(chunks), False, self._summary())

    def _finish_early(self, chunks: list[bytes]) -> Answer:
        if not chunks and formats.has_header(self._plan.format):
            self._stream = None  # the binding hides the header of an empty result, so ask again for the whole
            return self._whole()
        body = b"".join(chunks) + self.end()
        return Answer(body, True, self._summary(result_bytes=len(body)))

    def _summary(self, **counts: int) -> str:
        names = (
            "read_rows",
            "read_bytes",
            "written_rows",
            "written_bytes",
            "total_rows_to_read",
            "result_rows",
            "result_bytes",
        )
        said = {name: str(counts.get(name, 0)) for name in names}
        return json.dumps({**said, "elapsed_ns": str(time.monotonic_ns() - self._started)}, separators=(",", ":"))


def _quoted(parameters: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value.replace("\\", "\\\\").replace("'", "\\'")
        for name, value in parameters.items()
        if name.isidentifier()
    }
