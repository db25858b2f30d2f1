"""Settings: variables over a file over defaults, and errors that name the variable."""

from pathlib import Path

import pytest
from runtide.cli.settings import read_settings
from runtide.wire.errors import BadInput


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("RUNTIDE_"):
            monkeypatch.delenv(name)


def test_nested_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIDE_KAFKA_TOPIC_PREFIX", "mine")
    monkeypatch.setenv("RUNTIDE_GATEWAY_METRICS_PORT", "9")
    monkeypatch.setenv("RUNTIDE_CLICKHOUSE_SECURE", "1")
    monkeypatch.setenv("RUNTIDE_DASHBOARD_PORT", "10")
    monkeypatch.setenv("RUNTIDE_KAFKA_SECURITY", '{"security_protocol": "SSL"}')
    settings = read_settings()
    assert settings.kafka.topic_prefix == "mine"
    assert settings.gateway.metrics_port == 9
    assert settings.clickhouse.secure
    assert settings.dashboard_port == 10
    assert settings.kafka.security == {"security_protocol": "SSL"}


def test_variables_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "runtide.toml"
    file.write_text('home = "/x"\n[clickhouse]\nport = 1\nhost = "far"\n')
    monkeypatch.setenv("RUNTIDE_CONFIG", str(file))
    monkeypatch.setenv("RUNTIDE_CLICKHOUSE_PORT", "2")
    settings = read_settings()
    assert (settings.clickhouse.host, settings.clickhouse.port) == ("far", 2)
    assert settings.home_folder == Path("/x")
    assert read_settings(tmp_path).home_folder == tmp_path


def test_what_is_wrong_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIDE_GATEWAY_PORT", "many")
    with pytest.raises(BadInput, match="RUNTIDE_GATEWAY_PORT is 'many'"):
        read_settings()
    monkeypatch.delenv("RUNTIDE_GATEWAY_PORT")
    monkeypatch.setenv("RUNTIDE_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(BadInput, match=r"none\.toml"):
        read_settings()
    (tmp_path / "bad.toml").write_text("[gateway]\nprot = 1\n")
    monkeypatch.setenv("RUNTIDE_CONFIG", str(tmp_path / "bad.toml"))
    with pytest.raises(BadInput, match="RUNTIDE_GATEWAY_PROT"):
        read_settings()
