"""Certificates for tests of TLS, made with trustme, as PEM files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Authority:
    """One authority's PEM files: its own certificate, a server's for 127.0.0.1, and a client's."""

    ca: str
    server: str
    server_key: str
    client: str
    client_key: str

    def server_context(self, *, mutual: bool) -> ssl.SSLContext:
        """What a TLS server in the test's own process listens with."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.server, self.server_key)
        if mutual:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_authority(folder: Path) -> Authority:
    """Make an authority and what it signs, in a new folder."""
    folder.mkdir()
    authority = trustme.CA()
    paths = [_written(folder / "ca.pem", authority.cert_pem)]
    for name, identity in (("server", "127.0.0.1"), ("client", "agent@vision")):
        leaf = authority.issue_cert(identity)
        paths += [
            _written(folder / f"{name}.pem", *leaf.cert_chain_pems),
            _written(folder / f"{name}.key", leaf.private_key_pem),
        ]
    return Authority(*paths)


def _written(path: Path, *blobs: trustme.Blob) -> str:
    path.write_bytes(b"".join(blob.bytes() for blob in blobs))
    return str(path)
