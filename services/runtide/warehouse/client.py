"""The connection to ClickHouse. Clients may be shared between threads: they keep no session."""

from __future__ import annotations

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.warehouse.errors import classified
from runtide.warehouse.settings import ClickHouseSettings

__all__ = ["ClickHouseSettings", "Client", "connect"]


def connect(settings: ClickHouseSettings) -> Client:
    """Open a client. The database need not exist yet.

    Raises StoreBusy where nothing answers, StoreMisconfigured where user or password are wrong.
    """
    try:
        client = clickhouse_connect.get_client(
            host=settings.host,
            port=settings.port,
            username=settings.username,
            password=settings.password,
            secure=settings.secure,
            ca_cert=settings.ca_file or None,
            client_cert=settings.cert_file or None,
            client_cert_key=settings.key_file or None,
            tls_mode="strict" if settings.password else None,  # a certificate beside the password, or in its place
            database="default",
            connect_timeout=settings.connect_timeout_s,
            send_receive_timeout=settings.answer_timeout_s,
            autogenerate_session_id=False,
            compress=False,
            query_retries=0,
            client_name="runtide",
        )
    except ClickHouseError as error:
        raise classified(error) from error
    client.database = settings.database
    return client
