"""What gateways may rely on where tokens are kept: a file, Kafka's protocol, a real Kafka.

The real one is taken from RUNTIDE_TEST_KAFKA (host:port).
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from runtide.bus.control import Control, FileControl
from runtide.bus.kafka import KafkaSettings, ensure_topics
from runtide.bus.kafka.control import KafkaControl
from runtide.testing.mock_kafka import MockKafka
from runtide.wire.errors import BadInput, Unavailable


@pytest.fixture(params=["file", "mock", pytest.param("kafka", marks=pytest.mark.kafka)])
def make(
    request: pytest.FixtureRequest, tmp_path: Path, require: Callable[[object, str], None]
) -> Iterator[Callable[[], Control]]:
    """Makes further handles on one store."""
    if request.param == "file":
        yield lambda: FileControl(tmp_path / "home" / "control.json")
    elif request.param == "mock":
        with MockKafka() as mock:
            settings = kafka(mock.bootstrap)
            mock.create_topic(settings.control_topic, 3)
            yield lambda: KafkaControl(settings)
    else:
        bootstrap = os.environ.get("RUNTIDE_TEST_KAFKA", "")
        require(bootstrap, "RUNTIDE_TEST_KAFKA names no broker")
        settings = kafka(bootstrap)
        asyncio.run(ensure_topics(settings))
        yield lambda: KafkaControl(settings)


def kafka(bootstrap: str) -> KafkaSettings:
    return KafkaSettings(bootstrap, f"t{uuid.uuid4().hex}", send_timeout_s=10)


class Follower:
    """Keeps what it was told last."""

    def __init__(self, control: Control) -> None:
        self.entries: dict[str, Any] | None = None
        self.task = asyncio.create_task(control.follow(self.told))

    def told(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self.entries = dict(entries)

    async def until(self, wanted: dict[str, Any], within_s: float = 10.0) -> float:
        begun = time.monotonic()
        while self.entries != wanted:
            assert not self.task.done(), self.task.exception()
            assert time.monotonic() - begun < within_s, self.entries
            await asyncio.sleep(0.02)
        return time.monotonic() - begun

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def test_what_was_put_is_read_by_others_and_told_to_who_follows(make: Callable[[], Control]) -> None:
    async def main() -> None:
        assert await make().read() == {}
        first = Follower(make())
        await first.until({})
        await make().put("a", {"n": 1, "text": "é"})
        await make().put("b", {"n": 2})
        await make().put("a", {"n": 3, "none": None})
        wanted = {"a": {"n": 3, "none": None}, "b": {"n": 2}}
        assert await first.until(wanted) < 5, "within seconds"
        assert await make().read() == wanted
        second = Follower(make())
        await second.until(wanted)
        await first.end()
        await second.end()

    asyncio.run(main())


def test_the_first_that_is_told_is_everything(make: Callable[[], Control]) -> None:
    async def main() -> None:
        keys = {f"k{number}": {"n": number} for number in range(20)}
        for key, entry in keys.items():
            await make().put(key, entry)
        first: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(make().follow(lambda entries: first.done() or first.set_result(dict(entries))))
        assert await asyncio.wait_for(first, 10) == keys
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())


def test_puts_at_the_same_time_are_all_kept(make: Callable[[], Control]) -> None:
    async def main() -> None:
        await asyncio.gather(*(make().put(f"k{number}", {"n": number}) for number in range(8)))
        assert set(await make().read()) == {f"k{number}" for number in range(8)}

    asyncio.run(main())


# --- the file


def test_the_file_is_its_owners_and_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "home" / "control.json"

    async def main() -> None:
        for number in range(3):
            await FileControl(path).put("a", {"n": number})

    old = os.umask(0)
    try:
        asyncio.run(main())
    finally:
        os.umask(old)
    assert json.loads(path.read_text()) == {"a": {"n": 2}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(each.name for each in path.parent.iterdir()) == [".control.json.lock", "control.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "\x00"])
def test_a_file_that_is_not_understood_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "control.json"
    path.write_text(text)
    path.chmod(0o600)
    for work in (FileControl(path).read(), FileControl(path).put("a", {}), FileControl(path).follow(print)):
        with pytest.raises(BadInput, match=r"control\.json"):
            asyncio.run(work)  # type: ignore[arg-type]
    assert path.read_text() == text, "it is left as it is"


def test_a_file_that_others_may_write_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "control.json"
    path.write_text("{}")
    path.chmod(0o620)
    with pytest.raises(BadInput, match="chmod 600"):
        asyncio.run(FileControl(path).read())


def test_a_file_that_breaks_or_goes_later_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "control.json"

    async def main() -> None:
        await FileControl(path).put("a", {"n": 1})
        follower = Follower(FileControl(path))
        await follower.until({"a": {"n": 1}})
        path.write_text("{")
        await asyncio.sleep(1.2)
        path.unlink()
        await asyncio.sleep(1.2)
        assert follower.entries == {"a": {"n": 1}}
        await FileControl(path).put("a", {"n": 2})
        await follower.until({"a": {"n": 2}})
        await follower.end()

    asyncio.run(main())


# --- Kafka


def test_an_outage_of_the_brokers_only_delays() -> None:
    async def main() -> None:
        with MockKafka() as mock:
            settings = KafkaSettings(mock.bootstrap, f"t{uuid.uuid4().hex}", send_timeout_s=3)
            mock.create_topic(settings.control_topic)
            control = KafkaControl(settings)
            await control.put("a", {"n": 1})
            follower = Follower(control)
            await follower.until({"a": {"n": 1}})
            mock.set_down()
            begun = time.monotonic()
            with pytest.raises(Unavailable, match="RUNTIDE_KAFKA_BOOTSTRAP"):
                await control.read()
            with pytest.raises(Unavailable, match="RUNTIDE_KAFKA_BOOTSTRAP"):
                await control.put("a", {"n": 2})
            assert time.monotonic() - begun < 20
            assert follower.entries == {"a": {"n": 1}}
            mock.set_up()
            await control.put("a", {"n": 3})
            await follower.until({"a": {"n": 3}}, 30)
            await follower.end()

    asyncio.run(main())


def test_what_is_not_an_entry_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    from aiokafka import AIOKafkaProducer

    async def main() -> None:
        with MockKafka() as mock:
            settings = kafka(mock.bootstrap)
            mock.create_topic(settings.control_topic)
            producer = AIOKafkaProducer(**settings.client())
            await producer.start()
            for value in (b"{", b"[1]", b"\xff", None):
                await producer.send_and_wait(settings.control_topic, key=b"x", value=value)
            await producer.stop()
            await KafkaControl(settings).put("a", {"n": 1})
            assert await KafkaControl(settings).read() == {"a": {"n": 1}}

    asyncio.run(main())
    assert "control_entry_not_understood" in caplog.text
