"""Every limit of the wire in one table. Refusals name the field, the value and the limit from here."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

RECORD_BYTES = 256 * KIB
"""One record. Larger things are artifacts, referred to by digest."""

BATCH_BYTES = 900 * KIB
"""The body of one range. Kafka's default for a message is 1 MiB; what is left is for the envelope."""

PUSH_BYTES = 3 * MIB
"""All bodies of one Push; gRPC's default for a message is 4 MiB."""

PUSH_RANGES = 256
"""Ranges in one Push."""

KEY_SET_NAMES = 1024
"""Metric names of one key set; a log() with more is several Steps."""

NAME_BYTES = 1024
"""A metric name, configuration key, run name or tag, in UTF-8."""

LOG_LINE_BYTES = 32 * KIB
"""One captured console line; longer ones are cut and say so."""

IDENTITY_BYTES = 256
"""A project, run id, stream id or host name."""

EARLIEST_US = -2_208_988_800_000_000
"""1900-01-01: the first instant that ClickHouse's DateTime64 can hold."""

LATEST_US = 10_413_791_999_999_999
"""The end of 2299-12-31, the last one."""

SEGMENT_BYTES = 16 * MIB
"""One spool segment file."""

SPOOL_BYTES = 4 * 1024 * MIB
"""Default disk budget of one stream's unacknowledged bytes."""

STREAM_BYTES = 2**62
"""Where every stream ends at the latest: a larger offset is a mistake."""

REJECTED_BYTES = 64 * MIB
"""Refused bytes that are kept beside one stream; what is refused beyond is a gap all the same."""

RUN_METRIC_NAMES = 20_000
"""Distinct metric names of one run."""

GAP_RECORDS = 2**40
"""Records, or points, that one gap may declare lost: sums of them stay far within 64 bits."""

RULING_LETTERS = 1000
"""Dead letters that one range may rule on."""
