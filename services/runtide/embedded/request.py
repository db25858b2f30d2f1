"""A request of ClickHouse's HTTP interface, read from its line, headers and body. Pure: no engine, no socket."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl

from runtide.embedded.errors import AUTHENTICATION_FAILED, BAD_ARGUMENTS, NOT_IMPLEMENTED, ServerError

READER, WRITER = "default", "writer"


@dataclass(frozen=True)
class Request:
    """What a client asked, before anything is looked up."""

    method: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def query_parameters(self) -> dict[str, str]:
        """Values of {name:Type} in the query, from the URL or a form."""
        both = {**self.parameters, **self.form}
        return {name[6:]: value for name, value in both.items() if name.startswith("param_")}

    @property
    def url_query(self) -> str:
        """The part of the query that is not in the body."""
        return self.form.get("query") or self.parameters.get("query", "")

    @property
    def default_format(self) -> str:
        """The format where the query names none; empty for the server's own default."""
        return self.headers.get("x-clickhouse-format") or self.parameters.get("default_format", "")

    @property
    def database(self) -> str:
        """The database that unqualified names are of."""
        return self.headers.get("x-clickhouse-database") or self.parameters.get("database", "")

    def flag(self, name: str, default: bool = False) -> bool:
        """A 0/1 parameter."""
        value = self.parameters.get(name)
        return default if value is None or value == "" else value.lower() not in ("0", "false")


def read_parameters(query_string: bytes) -> dict[str, str]:
    """Decode a URL's query string; the last of equal names counts.

    Raises: ServerError when it is not UTF-8.
    """
    try:
        return dict(parse_qsl(query_string.decode("ascii"), keep_blank_values=True, errors="strict", separator="&"))
    except (UnicodeDecodeError, ValueError) as error:
        raise ServerError(BAD_ARGUMENTS, f"The URL is not UTF-8: {error}") from error


def credentials(request: Request) -> tuple[str, str]:
    """User and password from the ClickHouse headers, basic authentication, or the URL.

    Raises: ServerError for an Authorization header of another kind.
    """
    headers, parameters = request.headers, request.parameters
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user", "") or READER, headers.get("x-clickhouse-key", "")
    if authorization := headers.get("authorization"):
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "basic":
            raise ServerError(
                AUTHENTICATION_FAILED, f"Authentication failed: '{scheme}' HTTP Authorization scheme is not supported"
            )
        try:
            user, _, password = base64.b64decode(token, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ServerError(
                AUTHENTICATION_FAILED, "Authentication failed: the Authorization header is broken"
            ) from None
        return user or READER, password
    return parameters.get("user") or READER, parameters.get("password", "")


def authenticate(request: Request, writer_password: str) -> str:
    """The user that this request is of.

    Raises: ServerError (516) for an unknown user or a wrong password.
    """
    user, password = credentials(request)
    if user == READER:
        return READER  # it has no password, so any is right, as in a server
    if user == WRITER and hmac.compare_digest(password.encode(), writer_password.encode()):
        return WRITER
    raise ServerError(
        AUTHENTICATION_FAILED,
        f"{user}: Authentication failed: password is incorrect, or there is no user with such name.",
    )


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a multipart form: the query and its parameters.

    Raises: ServerError for a form with files, which would be external tables.
    """
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + body
    )
    if not message.is_multipart():
        raise ServerError(BAD_ARGUMENTS, "The multipart form cannot be read")
    fields = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", "", header="content-disposition"))
        if part.get_filename() is not None:
            raise ServerError(NOT_IMPLEMENTED, f"External table {name!r}: this server does not take external data")
        content = part.get_payload(decode=True)
        fields[name] = content.decode() if isinstance(content, bytes) else ""
    return fields
