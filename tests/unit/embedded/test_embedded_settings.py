from __future__ import annotations

import base64
from pathlib import Path

import pytest
from runtide.embedded.errors import ServerError, from_engine
from runtide.embedded.limits import QueryLimits
from runtide.embedded.request import Request, authenticate, read_form, read_parameters
from runtide.embedded.secret import read_or_create_secret
from runtide.embedded.settings import for_reader, from_parameters, set_statement

LIMITS = QueryLimits()


def test_ceilings_hold_whatever_is_asked() -> None:
    assert for_reader({}, LIMITS)["max_execution_time"] == "60"
    for asked, given in (
        ("10", "10"),
        ("0.5", "0.5"),
        ("0", "60"),
        ("61", "60"),
        ("-1", "60"),
        ("inf", "60"),
        ("nan", "60"),
    ):
        assert for_reader({"max_execution_time": asked}, LIMITS)["max_execution_time"] == given


def test_settings_that_would_lift_a_limit_are_refused() -> None:
    for name in (
        "readonly",
        "dialect",
        "profile",
        "format_template_row",
        "max_memory_usage_for_user",
        "read_overflow_mode",
    ):
        with pytest.raises(ServerError) as refused:
            for_reader({name: "0"}, LIMITS)
        assert refused.value.code == 452
    assert "max_block_size" in for_reader({"max_block_size": "1000"}, LIMITS)


def test_parameters_of_the_interface_are_no_settings() -> None:
    parameters = {"query": "x", "param_a": "1", "session_id": "s", "compress": "1", "max_threads": "2"}
    assert from_parameters(parameters) == {"max_threads": "2"}
    with pytest.raises(ServerError):
        from_parameters({"a = 1, b": "x"})


def test_values_are_quoted() -> None:
    assert set_statement({"a": "1", "b": "it's \\"}) == "SET a = '1', b = 'it\\'s \\\\'"


@pytest.mark.parametrize(
    ("text", "code", "name", "message"),
    [
        ("Code: 60. DB::Exception: No table. (UNKNOWN_TABLE)", 60, "UNKNOWN_TABLE", "No table."),
        ("Streaming query failed: Code: 395. DB::Exception: x (A_B) (version 26.9.2.1)", 395, "A_B", "x"),
        (
            "Code: 164. DB::Exception: Code: 164. DB::Exception: Cannot. (READONLY) (version 1). (READONLY)",
            164,
            "READONLY",
            "Cannot.",
        ),
        ("something else", 1002, "UNKNOWN_EXCEPTION", "something else"),
    ],
)
def test_the_engines_words(text: str, code: int, name: str, message: str) -> None:
    error = from_engine(RuntimeError(text))
    assert (error.code, error.name, error.message) == (code, name, message)
    assert error.text("1.2") == f"Code: {code}. DB::Exception: {message} ({name}) (version 1.2)"


def request(headers: dict[str, str] | None = None, **parameters: str) -> Request:
    return Request("POST", parameters, headers or {})


def test_who_asks() -> None:
    def basic(text: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(text.encode()).decode()}

    assert authenticate(request(), "pw") == "default"
    assert authenticate(request(basic("writer:pw")), "pw") == "writer"
    assert authenticate(request({"x-clickhouse-user": "writer", "x-clickhouse-key": "pw"}), "pw") == "writer"
    assert authenticate(request(user="writer", password="pw"), "pw") == "writer"
    for wrong in (basic("writer:no"), basic("pw"), {"authorization": "Bearer pw"}, {"authorization": "Basic !"}):
        with pytest.raises(ServerError) as refused:
            authenticate(request(wrong), "pw")
        assert (refused.value.code, refused.value.status) == (516, 403)


def test_the_url_is_read_as_utf8() -> None:
    assert read_parameters(b"query=SELECT+%27%C3%A9%27&empty=") == {"query": "SELECT 'é'", "empty": ""}
    with pytest.raises(ServerError):
        read_parameters(b"query=%FF")


def test_a_form_with_a_file_is_refused() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT 1\r\n--b--\r\n'
    assert read_form("multipart/form-data; boundary=b", body) == {"query": "SELECT 1"}
    with pytest.raises(ServerError):
        read_form("multipart/form-data; boundary=b", body.replace(b'"query"', b'"t"; filename="t"'))


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = read_or_create_secret(home)
    assert read_or_create_secret(home) == first
    assert (home / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.iterdir()] == ["secret"]
    (home / "secret").write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        read_or_create_secret(home)
