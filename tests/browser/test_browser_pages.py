"""The pages in Chromium: what they show equals SQL, they move by themselves, and recover when the store comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from runtide.processor.rebuild import rebuild
from runtide.testing import browser, sample_data
from runtide.testing.browser import until
from runtide.testing.embedded import EmbeddedClickHouse, start_embedded, stop_embedded
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.migrate import migrate
from runtide.warehouse.writer import Writer
from runtide.wire import canary

from tests.browser.seen import SOON_S, shows, table, text

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

LIVE = sample_data.SampleRun(
    "r-live", "live", state="running", exit_code=None, steps=300, started_s_ago=60, lasted_s=60
)
DONE = sample_data.SampleRun("r-done", "done", steps=100, world_size=2, user="grace", started_s_ago=900, lasted_s=300)
DEAD = sample_data.SampleRun(
    "r-dead", "dead", state="crashed", reason="killed by SIGKILL", exit_code=137, steps=50, project="audio"
)


@dataclass
class Stack:
    """ClickHouse and the app over it."""

    clickhouse: EmbeddedClickHouse
    address: str
    client: Client


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]) -> Iterator[Stack]:
    require(browser.chromium(), "no chromium and chromedriver here")
    folder: Path = tmp_path_factory.mktemp("page")
    server = start_embedded(folder / "home")
    client = connect(ClickHouseSettings(port=server.port, username="writer", password=server.password))
    migrate(client)
    try:
        with browser.dashboard(server.port, folder / "dashboard.log") as address:
            yield Stack(server, address, client)
    finally:
        stop_embedded(server)


@pytest.fixture(scope="module")
def filled(stack: Stack) -> Stack:
    sample_data.fill(stack.client, (LIVE, DONE, DEAD))
    rebuild(stack.client, force=True)
    return stack


@pytest.fixture(scope="module")
def driver(require: Callable[[object, str], None]) -> Iterator[Any]:
    require(browser.chromium(), "no chromium and chromedriver here")
    with browser.browser() as chromium:
        yield chromium


def last_step(driver: Any, metric: str) -> int:
    script = (
        "const e = document.querySelector(`[data-metric='${arguments[0]}'] [data-step]`);"
        "return e ? Number(e.dataset.step) : -1"
    )
    return int(driver.execute_script(script, metric))


def log_point(client: Client, step: int, value: float) -> None:
    """What the sink writes for one log() of rank 0 of the live run."""
    now = datetime.now(UTC)
    row = {
        "project": LIVE.project,
        "run_id": LIVE.run_id,
        "metric": "train/loss",
        "step": step,
        "rank": 0,
        "value": value,
        "time": now,
        "attempt": 1,
        "stream": f"{LIVE.run_id}-0",
        "offset": 10**8 + step,
        "length": 30,
        "of": 1,
        "received_at": now,
        "days": 0,
    }
    types = {"step": pa.int64(), "rank": pa.int32(), "value": pa.float64(), "time": pa.timestamp("us", "UTC")}
    types |= {"attempt": pa.uint16(), "offset": pa.uint64(), "length": pa.uint32(), "of": pa.uint16()}
    types |= {"received_at": pa.timestamp("ms", "UTC"), "days": pa.uint16()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in row])
    Writer(client).insert("points", pa.RecordBatch.from_pylist([row], schema=schema))


def test_without_runs_the_page_teaches(stack: Stack, driver: Any) -> None:
    driver.get(stack.address)
    shows(driver, "No runs yet")
    shows(driver, "runtide.init(")
    shows(driver, "grpc://127.0.0.1:7171")


def test_the_table_of_runs_equals_sql(filled: Stack, driver: Any) -> None:
    driver.get(filled.address)
    until(lambda: len(table(driver)) == 3, SOON_S, lambda: text(driver))
    rows = {row[1].split()[0]: row for row in table(driver)}
    wanted = filled.client.query("SELECT name, state, last_step, world_size, user FROM runtide.runs").result_rows
    for name, state, step, ranks, user in wanted:
        row = rows[name]
        assert row[0].split()[-1] == state
        assert row[4] == f"{step:,}"
        assert row[-2:] == [str(ranks), user]
    last = filled.client.query(
        "SELECT last FROM runtide.metric_summary WHERE run_id = 'r-done' AND metric = 'train/loss' AND rank = -1"
    ).result_rows[0][0]
    assert f"{last:.5g}" in rows["done"]


def test_filters_change_the_table_and_stand_in_the_address(filled: Stack, driver: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    driver.get(filled.address)
    until(lambda: len(table(driver)) == 3, SOON_S, lambda: text(driver))
    find = (By.CSS_SELECTOR, "input[aria-label='Find']")
    until(lambda: driver.find_elements(*find), SOON_S, lambda: text(driver))
    field = driver.find_element(*find)
    field.send_keys("grace" + Keys.ENTER)
    until(lambda: [row[1].split()[0] for row in table(driver)] == ["done"], 5, lambda: text(driver))
    assert "find=grace" in driver.current_url
    driver.get(f"{filled.address}/?state=crashed")
    until(lambda: [row[1].split()[0] for row in table(driver)] == ["dead"], SOON_S, lambda: text(driver))
    driver.get(f"{filled.address}/?project=vision")
    until(lambda: len(table(driver)) == 2, SOON_S, lambda: text(driver))


def test_a_row_opens_the_run(filled: Stack, driver: Any) -> None:
    from selenium.webdriver.common.by import By

    driver.get(f"{filled.address}/?project=audio")
    until(lambda: len(table(driver)) == 1, SOON_S, lambda: text(driver))
    driver.find_element(By.LINK_TEXT, "dead").click()
    shows(driver, "audio / r-dead")
    assert "crashed" in text(driver, ".rt-title")
    assert "killed by SIGKILL" in text(driver, ".rt-title")
    assert "project=audio&run=r-dead" in driver.current_url


def test_a_logged_value_appears_without_a_reload(filled: Stack, driver: Any) -> None:
    driver.get(f"{filled.address}/run?project=vision&run=r-live")
    until(lambda: last_step(driver, "train/loss") == LIVE.steps - 1, SOON_S, lambda: text(driver))
    find = "window.chart = document.querySelector('[data-testid=stVegaLiteChart] svg.marks')"
    until(lambda: driver.execute_script(f"{find}; return window.chart !== null"), SOON_S, lambda: text(driver))
    driver.execute_script("window.notReloaded = true")
    for step in (LIVE.steps, LIVE.steps + 1):
        log_point(filled.client, step, 7.25 + step)
        until(lambda step=step: last_step(driver, "train/loss") == step, 3.0, lambda: text(driver))
        assert f"{7.25 + step:.5g}" in text(driver, "[data-metric='train/loss']")
    assert driver.execute_script("return window.notReloaded === true")
    assert driver.execute_script("return document.contains(window.chart)"), "the chart was made anew"


def test_a_zoom_stays_when_new_values_come(filled: Stack, driver: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    chart = "[data-testid=stVegaLiteChart]"
    driver.get(f"{filled.address}/run?project=vision&run=r-live&like=train/loss")
    until(lambda: text(driver, f"{chart} .role-axis-label"), SOON_S, lambda: text(driver))
    labels = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent).join(' ')"
    before = driver.execute_script(labels, f"{chart} .role-axis-label text")
    plot = driver.find_element("css selector", chart)
    drag = ActionChains(driver).move_to_element(plot).click_and_hold().move_by_offset(-90, 0).release()
    drag.perform()

    def shown() -> str:
        return str(driver.execute_script(labels, f"{chart} .role-axis-label text"))

    until(lambda: shown() != before, 5.0, shown)
    zoomed = shown()
    for step in (LIVE.steps + 20, LIVE.steps + 21, LIVE.steps + 22):  # by the last one the first two are drawn
        log_point(filled.client, step, 1.0)
        until(lambda step=step: last_step(driver, "train/loss") == step, 3.0, lambda: text(driver))
        assert shown() == zoomed


def test_a_link_reproduces_the_view(filled: Stack, driver: Any) -> None:
    driver.get(f"{filled.address}/run?project=vision&run=r-done&view=Logs&log=UserWarning&console=stderr")
    until(lambda: "UserWarning" in text(driver, ".rt-log"), SOON_S, lambda: text(driver))
    assert len(driver.find_elements("css selector", ".rt-log div")) == 400 // 37
    driver.get(f"{filled.address}/run?project=vision&run=r-done&like=val&x=Time&ranks=Lines")
    until(lambda: last_step(driver, "val/loss") == 50, SOON_S, lambda: text(driver))
    assert last_step(driver, "train/loss") == -1


def test_every_view_of_a_run_shows_what_is_stored(filled: Stack, driver: Any) -> None:
    run = f"{filled.address}/run?project=vision&run=r-done"
    driver.get(f"{run}&view=Resources")
    shows(driver, "power watts")
    driver.get(f"{run}&view=Configuration")
    shows(driver, "model.depth")
    assert ["lr", "0.0003"] in table(driver)
    driver.get(f"{run}&view=Streams")
    shows(driver, "0 lost")
    until(lambda: table(driver), SOON_S, lambda: text(driver))
    points = filled.client.query("SELECT points FROM runtide.streams WHERE run_id = 'r-done' AND rank = 0").result_rows[
        0
    ][0]
    assert table(driver)[0][8] == f"{points:,}"


def test_a_run_that_is_not_known_is_not_shown_as_known(filled: Stack, driver: Any) -> None:
    driver.get(f"{filled.address}/run?project=vision&run=nobody")
    shows(driver, "Nothing is known yet of a run")


def log_beat(client: Client, beat: int, logged: int) -> None:
    """What the sink writes for one record of the canary."""
    values = zip(canary.METRICS, (beat, logged, 0.081, 1, 60), strict=True)
    rows = ", ".join(
        f"('{canary.PROJECT}', 'c', '{metric}', {beat}, 0, {value}, now64(6), 1, 's', {100 * beat}, 100, 5, "
        "now64(3), 7)"
        for metric, value in values
    )
    client.command(f"INSERT INTO runtide.points VALUES {rows}")


def test_the_system_page_says_what_the_canary_found(filled: Stack, driver: Any) -> None:
    driver.get(f"{filled.address}/system")
    shows(driver, "No canary has been heard for a day")
    log_beat(filled.client, 1, 5)
    driver.refresh()
    shows(driver, "81 ms")
    assert "Agreement\nyes" in text(driver, ".rt-facts")
    log_beat(filled.client, 3, 15)  # the second is not there
    shows(driver, "5 of its 15 points are neither stored nor declared", 5.0)
    assert "Agreement\nNO" in text(driver, ".rt-facts")


def test_the_page_says_when_the_store_is_away_and_recovers(filled: Stack, driver: Any) -> None:
    driver.get(f"{filled.address}/run?project=vision&run=r-live")
    until(lambda: last_step(driver, "train/loss") > 0, SOON_S, lambda: text(driver))
    filled.clickhouse.kill()
    try:
        shows(driver, "does not answer", 5.0)
        assert "runtide up" in text(driver)
        assert "as of" in text(driver)
        assert last_step(driver, "train/loss") > 0, "what was known stays, with its age"
    finally:
        again = start_embedded(filled.clickhouse.home, filled.clickhouse.port)
    try:
        until(lambda: "does not answer" not in text(driver), SOON_S, lambda: text(driver))
        log_point(filled.client, LIVE.steps + 50, 9.5)
        until(lambda: last_step(driver, "train/loss") == LIVE.steps + 50, 3.0, lambda: text(driver))
    finally:
        stop_embedded(again)
