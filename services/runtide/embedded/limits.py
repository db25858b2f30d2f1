"""What a stranger may ask of the embedded engine, in one table. The writer is limited by body sizes only."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class QueryLimits:
    """Ceilings of the read-only user, and sizes that hold for everybody."""

    max_execution_time_s: int = 60
    """Seconds before a query of the read-only user is cancelled."""
    max_memory_bytes: int = 2 * GIB
    """Memory that one query of the read-only user may use."""
    max_rows_to_read: int = 5_000_000_000
    """Rows that one query of the read-only user may read."""
    max_bytes_to_read: int = 256 * GIB
    """Bytes, uncompressed, that one query of the read-only user may read."""
    max_result_rows: int = 100_000_000
    """Rows that one query of the read-only user may return."""
    max_result_bytes: int = 8 * GIB
    """Bytes that one query of the read-only user may return."""
    max_buffered_result_bytes: int = 512 * MIB
    """Bytes of one result in a format that cannot be streamed (JSON, Parquet, Pretty)."""
    max_body_bytes: int = 512 * MIB
    """Bytes of one request body after decompression."""
    max_url_bytes: int = 1 * MIB
    """Bytes of one request line with its headers."""
    max_readers: int = 8
    """Queries of the read-only user that run at once; the next ones wait."""
    max_writers: int = 8
    """Statements of the writer that run at once; the next ones wait."""
    max_waiting: int = 256
    """Requests that may wait for a place; one more is refused."""
    stop_grace_s: int = 10
    """Seconds that running queries have to end after the signal to stop."""
