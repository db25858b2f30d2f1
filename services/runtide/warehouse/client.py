"""The connection to ClickHouse. Clients may be shared between threads: they keep no session."""

from __future__ import annotations

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.httpclient import HttpClient

from runtide.warehouse.errors import StoreMisconfigured, classified
from runtide.warehouse.settings import ClickHouseSettings

__all__ = ["ClickHouseSettings", "Client", "connect", "keep_to"]


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


def keep_to(client: Client, project: str) -> None:
    """Have ClickHouse show this client the rows of one project alone, whatever it asks for and by whatever view.

    Raises StoreMisconfigured where the tables are not there: nothing could be kept from it then.
    For pages, whose queries are their own: whoever may write SQL could take the setting back.
    """
    found = client.query(
        "SELECT table FROM system.columns WHERE database = 'runtide' AND name = 'project' AND table != 'price_rows'"
    )  # prices are those of all projects
    if not {"points", "runs"} <= {table for (table,) in found.result_rows}:
        raise StoreMisconfigured("the tables of runtide are not there yet: run `runtide migrate`")
    filtered = _literal(f"project = {_literal(project)}")
    filters = ", ".join(f"'runtide.{table}': {filtered}" for (table,) in found.result_rows)
    assert isinstance(client, HttpClient)
    client.params["additional_table_filters"] = f"{{{filters}}}"  # its own check takes every setting for read-only


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
