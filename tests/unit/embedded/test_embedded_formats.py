from __future__ import annotations

import io

import pyarrow as pa
import pytest
from runtide.embedded.formats import content_type, has_header, joiner


def join(name: str, chunks: list[bytes]) -> bytes:
    joined = joiner(name)
    assert joined is not None
    return b"".join([joined.add(chunk) for chunk in chunks] + [joined.end()])


@pytest.mark.parametrize(
    ("name", "chunks", "document"),
    [
        ("JSONEachRow", [b'{"a":1}\n', b'{"a":2}\n'], b'{"a":1}\n{"a":2}\n'),
        ("TSVWithNames", [b"a\n1\n", b"a\n2\n"], b"a\n1\n2\n"),
        ("TabSeparatedWithNamesAndTypes", [b"a\nInt8\n1\n", b"a\nInt8\n2\n"], b"a\nInt8\n1\n2\n"),
        ("CSVWithNames", [b'"a\n""b","c"\n1,2\n', b'"a\n""b","c"\n3,4\n'], b'"a\n""b","c"\n1,2\n3,4\n'),
        ("RowBinaryWithNames", [b"\x01\x01a\x07", b"\x01\x01a\x08"], b"\x01\x01a\x07\x08"),
        (
            "RowBinaryWithNamesAndTypes",
            [b"\x01\x01a\x04Int8\x07", b"\x01\x01a\x04Int8\x08"],
            b"\x01\x01a\x04Int8\x07\x08",
        ),
        ("Native", [], b""),
    ],
)
def test_chunks_become_one_document(name: str, chunks: list[bytes], document: bytes) -> None:
    assert join(name, chunks) == document


def test_arrow_chunks_become_one_stream() -> None:
    def chunk(values: list[int]) -> bytes:
        sink = io.BytesIO()
        batch = pa.record_batch({"a": pa.array(values, pa.int32()), "s": ["x"] * len(values)})
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        return sink.getvalue()

    read = pa.ipc.open_stream(join("ArrowStream", [chunk([1, 2]), chunk([3]), chunk([4, 5])])).read_all()
    assert read["a"].to_pylist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["JSON", "Parquet", "Arrow", "Pretty", "Vertical", "XML", "Values", "Unknown"])
def test_documents_with_an_end_are_not_streamed(name: str) -> None:
    assert joiner(name) is None


def test_empty_results() -> None:
    assert not has_header("Native")
    assert has_header("ArrowStream")


def test_content_types() -> None:
    assert content_type("JSONEachRow").startswith("application/x-ndjson")
    assert content_type("TabSeparatedRaw").startswith("text/tab-separated-values")
    assert content_type("Unknown").startswith("text/plain")
