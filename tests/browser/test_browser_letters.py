"""Dead letters in Chromium on a whole stack: shown as SQL has them, replayed once, discarded only when asked twice.

A letter is made by pushing steps before the names that they use; what arrives later is what a fix would be.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtide.testing import browser
from runtide.testing.browser import until
from runtide.testing.stack import Stack
from runtide.testing.streams import MadeStream
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.ingest_pb2_grpc import IngestStub

from tests.browser.seen import SOON_S, shows, table, text

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.fault(14), pytest.mark.timeout(300)]

NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]) -> Iterator[Stack]:
    require(browser.chromium(), "no chromium and chromedriver here")
    made = Stack(tmp_path_factory.mktemp("letters") / "home")
    try:
        made.up()
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def driver(require: Callable[[object, str], None]) -> Iterator[Any]:
    require(browser.chromium(), "no chromium and chromedriver here")
    with browser.browser() as chromium:
        yield chromium


def push(stack: Stack, *ranges: pb.Range) -> None:
    async def call() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.state.ports.gateway}") as channel:
            await IngestStub(channel).Push(pb.PushRequest(ranges=ranges), timeout=60)

    asyncio.run(call())


def poison(stack: Stack, run: str, steps: int = 3) -> tuple[MadeStream, pb.Range]:
    """A stream whose steps are dead letters, and the range that is the fix."""
    made = MadeStream(f"0192f{next(NUMBERS)}", project="default", run_id=run).open()
    made.key_set(1, "loss").steps(1, range(steps)).close()
    first, later = made.range(0, made.edges[1]), made.range(made.edges[2])
    for range_ in (first, later):
        del range_.key_sets[:]
    push(stack, first, later)
    return made, made.range(made.edges[1], made.edges[2])


def page(stack: Stack, address: str = "") -> str:
    return f"http://127.0.0.1:{stack.state.ports.dashboard}/letters?{address}"


def button(driver: Any, words: str) -> Any:
    def found() -> Any:
        return [each for each in driver.find_elements("css selector", "button") if each.text.strip() == words]

    until(found, SOON_S, lambda: f"no button {words!r} in:\n{text(driver)}")
    return found()[0]


def done(act: Callable[[], object]) -> None:
    """Do something to a page that may be drawn anew in the same moment."""
    from selenium.common.exceptions import ElementNotInteractableException, StaleElementReferenceException

    def tried() -> bool:
        try:
            act()
        except (ElementNotInteractableException, StaleElementReferenceException):
            return False
        return True

    until(tried, SOON_S)


def press(driver: Any, words: str) -> None:
    done(lambda: button(driver, words).click())


def say(driver: Any, reason: str) -> None:
    """Type into the field for the reason."""
    find = ("css selector", "input[aria-label^=Reason]")
    until(lambda: driver.find_elements(*find), SOON_S, lambda: text(driver))
    done(lambda: driver.find_element(*find).send_keys(reason))


def fates(stack: Stack, run: str) -> list[tuple[str, str]]:
    return stack.sql(f"SELECT DISTINCT fate, why FROM dead_letter_rulings WHERE run_id = '{run}' ORDER BY at, fate")


def test_a_letter_is_shown_as_sql_has_it(stack: Stack, driver: Any) -> None:
    made, _ = poison(stack, "shown")
    driver.get(page(stack, "run=shown"))
    until(lambda: len(table(driver)) == 3, SOON_S, lambda: text(driver))
    stored = stack.sql("SELECT project, stream, offset, kind, reason, length FROM dead_letters WHERE run_id = 'shown'")
    shown = {int(row[5]): row for row in table(driver)}
    for project, stream, offset, kind, reason, length in stored:
        row = shown[offset]
        assert row[2:5] == [project, "shown", stream[-10:]]
        assert row[6:] == [kind, reason, f"{length} B"]
    driver.get(page(stack, f"run=shown&letter=s:{'9' * 5000}"))
    until(lambda: len(table(driver)) == 3, SOON_S, lambda: text(driver))
    driver.get(page(stack, "run=shown&find=nowhere"))
    shows(driver, "No dead letter matches")
    driver.get(page(stack, "run=shown&find=KEY+step"))
    until(lambda: len(table(driver)) == 3, SOON_S, lambda: text(driver))
    driver.find_element("css selector", ".rt-table td.wrap a").click()
    shows(driver, "As far as it can be read")
    assert "unknown key set" in text(driver, "h1")
    raw = bytes(made.body[made.edges[2] : made.edges[3]])
    for part in ('"key_set": 1', raw[:16].hex(" ")):
        until(lambda part=part: part in text(driver, "pre"), SOON_S, lambda: text(driver))  # type: ignore[misc]


def test_a_run_says_how_many_it_has_and_leads_to_them(stack: Stack, driver: Any) -> None:
    poison(stack, "linked", 2)
    driver.get(f"http://127.0.0.1:{stack.state.ports.dashboard}/run?project=default&run=linked")
    shows(driver, "2 pending")
    driver.find_element("link text", "2 pending").click()
    until(lambda: len(table(driver)) == 2, SOON_S, lambda: text(driver))
    assert "run=linked" in driver.current_url


def test_a_replay_closes_the_hole_once(stack: Stack, driver: Any) -> None:
    _, fix = poison(stack, "replayed")
    driver.get(page(stack, "project=default&run=replayed"))
    press(driver, "Replay 3")
    shows(driver, "Replay 3 dead letters?")
    press(driver, "Replay now")
    shows(driver, "3 refused: unknown key set")
    assert stack.sql("SELECT count() FROM points WHERE run_id = 'replayed'") == [(0,)]

    push(stack, fix)
    press(driver, "Replay 3")
    say(driver, "the names are there")
    press(driver, "Replay now")
    shows(driver, "3 replayed")
    until(lambda: table(driver) == [], SOON_S, lambda: text(driver))
    assert ("replayed", "the names are there") in fates(stack, "replayed")
    code, verified = stack.verify("replayed")
    assert (code, verified["dead"], verified["stored_points"]) == (0, 0, 3), verified["problems"]


def test_a_second_replay_adds_nothing(stack: Stack, driver: Any) -> None:
    _, fix = poison(stack, "twice")
    push(stack, fix)
    driver.get(page(stack, "project=default&run=twice"))
    press(driver, "Replay 3")
    shows(driver, "Replay 3 dead letters?")
    # while the question is open here somebody else answers it
    assert stack.runtide("dead-letters", "replay", "twice").returncode == 0
    before = stack.sql("SELECT count() FROM dead_letter_rulings WHERE run_id = 'twice'")
    press(driver, "Replay now")
    shows(driver, "3 replayed", 30)
    assert stack.sql("SELECT count() FROM points WHERE run_id = 'twice'") == [(3,)]
    assert stack.sql("SELECT count() FROM dead_letter_rulings WHERE run_id = 'twice'") == before
    assert stack.verify("twice")[0] == 0


def test_discard_asks_and_wants_a_reason(stack: Stack, driver: Any) -> None:
    made, _ = poison(stack, "given-up", 1)
    driver.get(page(stack, f"project=default&run=given-up&letter={made.stream}:{made.edges[2]}"))
    press(driver, "Discard")
    shows(driver, "Discard this dead letter for good?")
    press(driver, "Cancel")
    until(lambda: "for good?" not in text(driver), SOON_S, lambda: text(driver))
    press(driver, "Discard")
    press(driver, "Discard for good")
    shows(driver, "Say why")
    assert fates(stack, "given-up") == []
    for letter in "by <b>hand</b>":
        say(driver, letter)
        driver.execute_async_script("setTimeout(arguments[0], 200)")  # the page is drawn anew meanwhile
    press(driver, "Discard for good")
    shows(driver, "1 discarded: by <b>hand</b>")
    assert fates(stack, "given-up") == [("discarded", "by <b>hand</b>")]
    until(lambda: table(driver)[0][1:2] == ["discarded"], SOON_S, lambda: text(driver))
    assert table(driver)[0][4] == "by <b>hand</b>", "what somebody typed is text, not a page"
    assert "by the dashboard" in table(driver)[0][2]
    assert "Discard" not in [each.text for each in driver.find_elements("css selector", "button")]


def test_only_an_admin_has_the_buttons_once_there_are_tokens(stack: Stack, driver: Any, tmp_path: Path) -> None:
    made, _ = poison(stack, "guarded", 1)
    tokens = {}
    for role in ("reader", "admin"):
        said = stack.runtide("token", "create", "--project", "default", "--role", role, "--name", "ann")
        tokens[role] = said.stdout.strip()
    driver.get(page(stack, "project=default&run=guarded"))
    shows(driver, "asks for tokens and this page has none", 60)
    assert not button(driver, "Discard").is_enabled()
    gateway = {"RUNTIDE_DASHBOARD_GATEWAY": f"grpc://127.0.0.1:{stack.state.ports.gateway}"}
    letter = f"letters?project=default&run=guarded&letter={made.stream}:{made.edges[2]}"
    for role, told in (
        ("reader", {"RUNTIDE_DASHBOARD_TOKEN": tokens["reader"]}),
        ("admin", {"RUNTIDE_DASHBOARD_SIGN_IN": "token"}),
    ):
        port = stack.state.ports.clickhouse
        with browser.dashboard(port, tmp_path / f"{role}.log", gateway | told) as address:
            driver.get(f"{address}/{letter}")
            if role == "reader":
                shows(driver, "role is reader; to replay or discard needs admin", 60)
                assert not button(driver, "Replay").is_enabled()
                continue
            until(lambda: driver.find_elements("css selector", "input[type=password]"), 60, lambda: text(driver))
            driver.find_element("css selector", "input[type=password]").send_keys(tokens["admin"])
            press(driver, "Sign in")
            press(driver, "Discard")
            say(driver, "a test")
            press(driver, "Discard for good")
            shows(driver, "1 discarded: a test")
    said = json.loads(stack.runtide("dead-letters", "list", "guarded", "--all", "--json").stdout)
    (ruled,) = said[0]["rulings"]
    assert (ruled["fate"], ruled["why"]) == ("discarded", "a test")
    assert ruled["token"].split(" ")[1:] == ["admin", "ann"]
    assert ruled["token"].split(" ")[0] in tokens["admin"]
    assert stack.sql("SELECT token FROM dead_letter_rulings WHERE run_id = 'guarded'") == [(ruled["token"],)]
