from runtide.v1 import records_pb2 as _records_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PushRequest(_message.Message):
    __slots__ = ("ranges", "agent", "sent_us")
    RANGES_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    SENT_US_FIELD_NUMBER: _ClassVar[int]
    ranges: _containers.RepeatedCompositeFieldContainer[Range]
    agent: str
    sent_us: int
    def __init__(self, ranges: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., agent: _Optional[str] = ..., sent_us: _Optional[int] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("stream", "offset", "run_id", "rank", "attempt", "host", "role", "project", "key_sets", "gap", "ruling", "actor", "body")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    KEY_SETS_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    RULING_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    stream: str
    offset: int
    run_id: str
    rank: int
    attempt: int
    host: str
    role: _records_pb2.Role
    project: str
    key_sets: _containers.RepeatedCompositeFieldContainer[_records_pb2.KeySet]
    gap: _records_pb2.Gap
    ruling: Ruling
    actor: str
    body: bytes
    def __init__(self, stream: _Optional[str] = ..., offset: _Optional[int] = ..., run_id: _Optional[str] = ..., rank: _Optional[int] = ..., attempt: _Optional[int] = ..., host: _Optional[str] = ..., role: _Optional[_Union[_records_pb2.Role, str]] = ..., project: _Optional[str] = ..., key_sets: _Optional[_Iterable[_Union[_records_pb2.KeySet, _Mapping]]] = ..., gap: _Optional[_Union[_records_pb2.Gap, _Mapping]] = ..., ruling: _Optional[_Union[Ruling, _Mapping]] = ..., actor: _Optional[str] = ..., body: _Optional[bytes] = ...) -> None: ...

class Ruling(_message.Message):
    __slots__ = ("offsets", "by", "discard", "why", "token")
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    offsets: _containers.RepeatedScalarFieldContainer[int]
    by: str
    discard: str
    why: str
    token: str
    def __init__(self, offsets: _Optional[_Iterable[int]] = ..., by: _Optional[str] = ..., discard: _Optional[str] = ..., why: _Optional[str] = ..., token: _Optional[str] = ...) -> None: ...

class PushResponse(_message.Message):
    __slots__ = ("acks",)
    ACKS_FIELD_NUMBER: _ClassVar[int]
    acks: _containers.RepeatedCompositeFieldContainer[Ack]
    def __init__(self, acks: _Optional[_Iterable[_Union[Ack, _Mapping]]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("stream", "acknowledged", "refusal", "later")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    LATER_FIELD_NUMBER: _ClassVar[int]
    stream: str
    acknowledged: int
    refusal: Refusal
    later: Later
    def __init__(self, stream: _Optional[str] = ..., acknowledged: _Optional[int] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., later: _Optional[_Union[Later, _Mapping]] = ...) -> None: ...

class Later(_message.Message):
    __slots__ = ("limit", "text", "retry_after_ms")
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    limit: str
    text: str
    retry_after_ms: int
    def __init__(self, limit: _Optional[str] = ..., text: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("code", "field", "value", "limit", "offset", "key_sets")
    CODE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    KEY_SETS_FIELD_NUMBER: _ClassVar[int]
    code: str
    field: str
    value: str
    limit: str
    offset: int
    key_sets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, code: _Optional[str] = ..., field: _Optional[str] = ..., value: _Optional[str] = ..., limit: _Optional[str] = ..., offset: _Optional[int] = ..., key_sets: _Optional[_Iterable[int]] = ...) -> None: ...

class PreflightRequest(_message.Message):
    __slots__ = ("project", "run_id", "launch_id", "fingerprint", "config")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_ID_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    project: str
    run_id: str
    launch_id: str
    fingerprint: _records_pb2.Fingerprint
    config: str
    def __init__(self, project: _Optional[str] = ..., run_id: _Optional[str] = ..., launch_id: _Optional[str] = ..., fingerprint: _Optional[_Union[_records_pb2.Fingerprint, _Mapping]] = ..., config: _Optional[str] = ...) -> None: ...

class PreflightResponse(_message.Message):
    __slots__ = ("project", "run_exists", "run_state", "attempt", "time_us", "limits", "last_step", "role", "duplicates")
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    RUN_EXISTS_FIELD_NUMBER: _ClassVar[int]
    RUN_STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    project: str
    run_exists: bool
    run_state: str
    attempt: int
    time_us: int
    limits: _containers.ScalarMap[str, int]
    last_step: int
    role: str
    duplicates: _containers.RepeatedCompositeFieldContainer[Duplicate]
    def __init__(self, project: _Optional[str] = ..., run_exists: bool = ..., run_state: _Optional[str] = ..., attempt: _Optional[int] = ..., time_us: _Optional[int] = ..., limits: _Optional[_Mapping[str, int]] = ..., last_step: _Optional[int] = ..., role: _Optional[str] = ..., duplicates: _Optional[_Iterable[_Union[Duplicate, _Mapping]]] = ...) -> None: ...

class Duplicate(_message.Message):
    __slots__ = ("run_id", "name", "user", "state", "started_us", "duration_s", "world_size", "differences", "result")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STARTED_US_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    name: str
    user: str
    state: str
    started_us: int
    duration_s: float
    world_size: int
    differences: _containers.RepeatedCompositeFieldContainer[Difference]
    result: str
    def __init__(self, run_id: _Optional[str] = ..., name: _Optional[str] = ..., user: _Optional[str] = ..., state: _Optional[str] = ..., started_us: _Optional[int] = ..., duration_s: _Optional[float] = ..., world_size: _Optional[int] = ..., differences: _Optional[_Iterable[_Union[Difference, _Mapping]]] = ..., result: _Optional[str] = ...) -> None: ...

class Difference(_message.Message):
    __slots__ = ("what", "there", "here")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    THERE_FIELD_NUMBER: _ClassVar[int]
    HERE_FIELD_NUMBER: _ClassVar[int]
    what: str
    there: str
    here: str
    def __init__(self, what: _Optional[str] = ..., there: _Optional[str] = ..., here: _Optional[str] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ("project", "streams")
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    project: str
    streams: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, project: _Optional[str] = ..., streams: _Optional[_Iterable[str]] = ...) -> None: ...

class StatusResponse(_message.Message):
    __slots__ = ("streams",)
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[StreamStatus]
    def __init__(self, streams: _Optional[_Iterable[_Union[StreamStatus, _Mapping]]] = ...) -> None: ...

class StreamStatus(_message.Message):
    __slots__ = ("stream", "stored", "holes")
    STREAM_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    HOLES_FIELD_NUMBER: _ClassVar[int]
    stream: str
    stored: int
    holes: int
    def __init__(self, stream: _Optional[str] = ..., stored: _Optional[int] = ..., holes: _Optional[int] = ...) -> None: ...
