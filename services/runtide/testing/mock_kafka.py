"""A Kafka-protocol broker in this process, without Java: librdkafka's mock cluster, inside the confluent-kafka wheel.

It produces, fetches, keeps groups and commits, and can be told to misbehave: brokers down, slow, answering with errors.
It is not Kafka: everything is in memory, a partition keeps its last 5 MiB only, and topics are made here, not by an
admin client. What must hold on a real broker is tested on a real broker too.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from runtide.wire.errors import MissingExtra

PRODUCE = 0
"""API key of Produce, for `push_errors`."""
OFFSET_COMMIT = 8
"""API key of OffsetCommit."""

NOT_LEADER = 6
REQUEST_TIMED_OUT = 7
NOT_ENOUGH_REPLICAS = 19
NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20
OUT_OF_ORDER_SEQUENCE = 45

_PRODUCER = 0
_OK = 0


class MockKafka:
    """A cluster of `brokers` that listen on ports of 127.0.0.1. Close it, or use it as a context manager."""

    def __init__(self, brokers: int = 1, rebalance_delay_ms: int = 0) -> None:
        """`rebalance_delay_ms`: how long a new group waits for more members. Raises MissingExtra without the wheel."""
        self._lib = _library()
        self._brokers = range(1, brokers + 1)
        error = ctypes.create_string_buffer(512)
        conf = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(conf, b"log_level", b"0", error, len(error))  # it would complain of being unused
        self._client = self._lib.rd_kafka_new(_PRODUCER, conf, error, len(error))
        if not self._client:
            raise RuntimeError(error.value.decode())
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, brokers)
        self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, rebalance_delay_ms)
        self.bootstrap: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        """Addresses, joined by commas."""

    def __enter__(self) -> MockKafka:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the brokers."""
        if self._cluster:
            self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
            self._lib.rd_kafka_destroy(self._client)
            self._cluster = self._client = None

    def create_topic(self, name: str, partitions: int = 4) -> None:
        """Make a topic."""
        self._check(self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, len(self._brokers)))

    def set_down(self) -> None:
        """Cut all connections and take no new ones."""
        for broker in self._brokers:
            self._check(self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker))

    def set_up(self) -> None:
        """Take connections again."""
        for broker in self._brokers:
            self._check(self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def set_round_trip(self, milliseconds: int) -> None:
        """Answer everything so much later."""
        for broker in self._brokers:
            self._check(self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds))

    def move_leader(self, topic: str, partition: int, broker: int) -> None:
        """Let another broker, counted from 1, lead a partition."""
        self._check(self._lib.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, broker))

    def move_coordinator(self, group: str, broker: int) -> None:
        """Let another broker, counted from 1, coordinate a group."""
        self._check(self._lib.rd_kafka_mock_coordinator_set(self._cluster, b"group", group.encode(), broker))

    def push_errors(self, api_key: int, codes: Sequence[int]) -> None:
        """Answer the next requests of one kind with these error codes, one each."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._lib.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(codes), array)

    def _check(self, code: int) -> None:
        if code != _OK:
            raise RuntimeError(f"librdkafka says {code}")


def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("confluent_kafka")
    if spec is None or spec.origin is None:
        raise MissingExtra("the mock cluster", "dev")
    package = Path(spec.origin).parent
    folders = (package.with_name("confluent_kafka.libs"), package / ".dylibs")
    found = [path for folder in folders if folder.is_dir() for path in folder.glob("librdkafka*")]
    if not found:
        raise MissingExtra("the mock cluster (confluent-kafka without its own librdkafka)", "dev")
    lib = ctypes.CDLL(str(found[0]))
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, ()),
        ("rd_kafka_conf_set", number, (pointer, text, text, text, ctypes.c_size_t)),
        ("rd_kafka_new", pointer, (number, pointer, text, ctypes.c_size_t)),
        ("rd_kafka_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_new", pointer, (pointer, number)),
        ("rd_kafka_mock_cluster_destroy", None, (pointer,)),
        ("rd_kafka_mock_cluster_bootstraps", text, (pointer,)),
        ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_topic_create", number, (pointer, text, number, number)),
        ("rd_kafka_mock_broker_set_down", number, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_up", number, (pointer, ctypes.c_int32)),
        ("rd_kafka_mock_broker_set_rtt", number, (pointer, ctypes.c_int32, number)),
        ("rd_kafka_mock_partition_set_leader", number, (pointer, text, ctypes.c_int32, ctypes.c_int32)),
        ("rd_kafka_mock_coordinator_set", number, (pointer, text, text, ctypes.c_int32)),
        ("rd_kafka_mock_push_request_errors_array", None, (pointer, ctypes.c_int16, ctypes.c_size_t, pointer)),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib
