"""Who sees the pages: the real app over a real store, and a real gateway that knows the tokens."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from runtide.cli.dashboard import sign_in
from runtide.cli.settings import read_settings
from runtide.gateway import TokenBook
from runtide.gateway.tokens import new_token, revoked
from runtide.processor.rebuild import rebuild
from runtide.testing import sample_data
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.gateway import serving
from runtide.warehouse.client import ClickHouseSettings, connect, keep_to
from runtide.warehouse.migrate import migrate
from runtide.wire.errors import BadInput
from runtide.wire.roles import Role
from streamlit.testing.v1 import AppTest

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
READER, TEXT = new_token("audio", Role.READER)
RUNS = (
    sample_data.SampleRun("r-vision", "seen-by-vision", steps=20, started_s_ago=900, lasted_s=300),
    sample_data.SampleRun("r-audio", "seen-by-audio", steps=20, started_s_ago=900, lasted_s=300, project="audio"),
)


@dataclass
class Gate:
    """A gateway in a thread, and its tokens."""

    book: TokenBook
    port: int


@pytest.fixture
def gate() -> Iterator[Gate]:
    book, ready, loop = TokenBook(), threading.Event(), asyncio.new_event_loop()
    found = Gate(book, 0)
    done = asyncio.Event()

    async def main() -> None:
        async with serving(tokens=book) as served:
            found.port = served.gateway.port
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert ready.wait(10)
    yield found
    loop.call_soon_threadsafe(done.set)
    thread.join(10)
    loop.close()


@pytest.fixture
def app(embedded_clickhouse: EmbeddedClickHouse, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> Iterator[AppTest]:
    server = embedded_clickhouse
    client = connect(ClickHouseSettings(server.host, server.port, "writer", server.password))
    migrate(client)
    sample_data.fill(client, RUNS)
    rebuild(client)
    client.close()
    monkeypatch.setenv("RUNTIDE_CLICKHOUSE_PORT", str(server.port))
    monkeypatch.setenv("RUNTIDE_DASHBOARD_SIGN_IN", "token")
    monkeypatch.setenv("RUNTIDE_DASHBOARD_GATEWAY", f"grpc://127.0.0.1:{gate.port}")
    monkeypatch.syspath_prepend(str(DASHBOARDS))
    yield AppTest.from_file(str(DASHBOARDS / "app.py"), default_timeout=30)
    for name in [name for name in sys.modules if name == "parts" or name.startswith("parts.")]:
        del sys.modules[name]


def shown(app: AppTest) -> str:
    return "\n".join(str(element.proto) for element in app.main)


def enter(app: AppTest, token: str) -> AppTest:
    app.text_input[0].set_value(token)
    app.button[0].click()
    return app.run()


def test_a_token_opens_its_project_alone(app: AppTest, gate: Gate) -> None:
    app.run()
    assert not app.exception
    assert "seen-by" not in shown(app), "nothing before somebody signs in"
    assert "no tokens yet" in enter(app, "anything").error[0].value, "a gateway that is open vouches for nobody"
    gate.book.learn({"token/a": READER.entry()})
    assert "not known" in enter(app, new_token("audio", Role.READER)[1]).error[0].value
    enter(app, TEXT)
    assert not app.exception
    assert "seen-by-audio" in shown(app)
    assert "seen-by-vision" not in shown(app)
    assert TEXT not in shown(app)
    # a revocation acts within half a minute
    gate.book.learn({"token/a": revoked(READER).entry()})
    app.session_state["gate:checked"] -= 31
    app.run()
    assert "seen-by" not in shown(app)
    assert app.text_input[0].label == "Token"


@pytest.mark.parametrize("project", ["audio", "o'b\\rien"])
def test_clickhouse_filters_every_table_and_view(
    app: AppTest,
    embedded_clickhouse: EmbeddedClickHouse,
    project: str,
) -> None:
    client = connect(ClickHouseSettings(embedded_clickhouse.host, embedded_clickhouse.port))
    columns = "SELECT table FROM system.columns WHERE database = 'runtide' AND name = 'project' ORDER BY table"
    tables = [str(table) for (table,) in client.query(columns).result_rows]
    assert {"points", "metrics", "run_rows", "runs", "metric_summary", "step_stats"} <= set(tables)
    assert client.query("SELECT count() FROM runs WHERE project != 'audio'").result_rows != [(0,)]
    keep_to(client, project)
    for table in tables:
        for query in (f"runtide.{table}", f"(SELECT * FROM runtide.{table})"):
            assert client.query(f"SELECT count() FROM {query} WHERE project != 'audio'").result_rows == [(0,)], table
    own = client.query("SELECT count() FROM metrics").result_rows[0][0]
    assert (own > 0) == (project == "audio")
    client.close()


def test_elsewhere_than_on_loopback_a_sign_in_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sign_in(read_settings(), "127.0.0.1")["RUNTIDE_DASHBOARD_SIGN_IN"] == ""
    with pytest.raises(BadInput, match="RUNTIDE_DASHBOARD_SIGN_IN"):
        sign_in(read_settings(), "0.0.0.0")
    for how in ("token", "oidc"):
        monkeypatch.setenv("RUNTIDE_DASHBOARD_SIGN_IN", how)
        assert sign_in(read_settings(), "0.0.0.0")["RUNTIDE_DASHBOARD_SIGN_IN"] == how


def test_oidc_shows_nothing_before_the_sign_in(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIDE_DASHBOARD_SIGN_IN", "oidc")
    app.secrets["auth"] = {
        "redirect_uri": "http://localhost:8501/oauth2callback",
        "cookie_secret": "x" * 32,
        "client_id": "id",
        "client_secret": "secret",
        "server_metadata_url": "http://127.0.0.1:1/.well-known/openid-configuration",
    }
    app.run()
    assert not app.exception
    assert [button.label for button in app.button] == ["Sign in"]
    assert "seen-by" not in shown(app)


def test_without_a_sign_in_everything_is_shown(app: AppTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIDE_DASHBOARD_SIGN_IN", "")
    app.run()
    assert not app.exception
    assert "seen-by-audio" in shown(app)
    assert "seen-by-vision" in shown(app)
