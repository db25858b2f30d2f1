"""Price tables as files: what is taken, and what is refused with which words."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from runtide.cli.prices import BEGINNING, apply, like, read_prices, tables, unlike
from runtide.warehouse.client import Client
from runtide.wire.errors import BadInput

ROOT = Path(__file__).parents[3]


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.toml"
    path.write_text(text)
    return path


def test_the_example_is_a_table_and_has_no_prices() -> None:
    table = read_prices(ROOT / "deploy" / "prices.toml")
    assert (table.gpu, table.host, table.cpu_hour, table.power.kwh, table.carbon.g_per_kwh) == ({}, {}, 0, 0, 0)
    assert table.power.gpu_watts["Tesla T4"] == 70


def test_a_table_is_read(tmp_path: Path) -> None:
    table = read_prices(
        written(tmp_path, 'currency = "EUR"\nvalid_from = 2026-01-02T03:04:05+01:00\ngpu = {"*" = 1, "x" = 2.5}\n')
    )
    assert list(table.gpu.items()) == [("*", 1.0), ("x", 2.5)]
    assert table.valid_from == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "field", "value", "limit"),
    [
        ("cpu_hour = 1", "currency", "{'cpu_hour': 1}", "required"),
        ('currency = ""', "currency", "''", "at least 1 character"),
        ('currency = "E"\ngpu = {"T4" = -1}', "gpu.T4", "-1", "greater than or equal to 0"),
        ('currency = "E"\ngpu = {"T4" = "2"}', "gpu.T4", "'2'", "valid number"),
        ('currency = "E"\ncpu_hour = inf', "cpu_hour", "inf", "finite"),
        ('currency = "E"\ncpu_hour = 1e10', "cpu_hour", "10000000000.0", "less than or equal to 1000000000"),
        ('currency = "E"\ncpu_hour = nan', "cpu_hour", "nan", "finite"),
        ('currency = "E"\npower = {watts = 3}', "power.watts", "3", "not permitted"),
        ('currency = "E"\nvalid_from = 2026-01-01T00:00:00', "valid_from", "2026", "timezone"),
        ('currency = "E"\ncarbon = {g_per_kwh = 400}', "carbon", "400", "carbon.source"),
        (f'currency = "E"\nhost = {{"{"x" * 201}" = 1}}', "host.", "x", "at most 200 characters"),
        ("currency = ", "FILE", "prices.toml", "TOML"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, text: str, field: str, value: str, limit: str) -> None:
    with pytest.raises(BadInput) as error:
        read_prices(written(tmp_path, text))
    for part in (field, value, limit):
        assert part in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.toml"):
        read_prices(tmp_path / "none.toml")


@given(some.text(alphabet="aB1*?%_\\. "))
def test_a_pattern_comes_back_as_it_was(pattern: str) -> None:
    assert unlike(like(pattern)) == pattern


@pytest.mark.parametrize(
    ("pattern", "model", "fits"),
    [
        ("NVIDIA H100*", "nvidia h100 80GB HBM3", True),
        ("Tesla T?", "Tesla T4", True),
        ("Tesla T?", "Tesla T40", False),
        ("a_b%", "a_b%", True),
        ("a_b%", "axb%", False),
        ("a_b%", "a_bx", False),
        ("a\\*", "a\\b", True),
    ],
)
def test_patterns_fit_as_file_names_do(client: Client, pattern: str, model: str, fits: bool) -> None:
    found = client.query(
        "SELECT {model:String} ILIKE {like:String}", parameters={"model": model, "like": like(pattern)}
    )
    assert found.result_rows == [(int(fits),)]


def test_the_first_table_holds_for_all_runs_and_the_next_from_now_on(client: Client, tmp_path: Path) -> None:
    table = read_prices(written(tmp_path, 'currency = "EUR"\nhost = {"100%_\\\\*" = 1, "*" = 2}\n'))
    now = datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert apply(client, table, now) == BEGINNING
    assert apply(client, table, now) == now
    assert apply(client, table.model_copy(update={"valid_from": now, "currency": "USD"}), now) == now
    found = tables(client)
    assert [row["currency"] for row in found] == ["USD", "EUR"]
    assert list(found[0]["host_hour"].items()) == [("100%_\\*", 1.0), ("*", 2.0)]
