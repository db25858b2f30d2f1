from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_RANK: _ClassVar[Role]
    ROLE_CHILD: _ClassVar[Role]
    ROLE_AGENT: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]

class Console(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONSOLE_UNSPECIFIED: _ClassVar[Console]
    CONSOLE_STDOUT: _ClassVar[Console]
    CONSOLE_STDERR: _ClassVar[Console]
ROLE_UNSPECIFIED: Role
ROLE_RANK: Role
ROLE_CHILD: Role
ROLE_AGENT: Role
ROLE_USER: Role
CONSOLE_UNSPECIFIED: Console
CONSOLE_STDOUT: Console
CONSOLE_STDERR: Console

class Batch(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("stream_opened", "key_set", "step", "sample", "log_line", "config_set", "figure", "artifact_ref", "dataset_use", "mark", "alert", "kpi", "change", "heartbeat", "gap", "stream_closed", "stream_ended", "summary_set", "environment", "source_file", "fingerprint", "metric_defined", "crc")
    STREAM_OPENED_FIELD_NUMBER: _ClassVar[int]
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    LOG_LINE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_SET_FIELD_NUMBER: _ClassVar[int]
    FIGURE_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_REF_FIELD_NUMBER: _ClassVar[int]
    DATASET_USE_FIELD_NUMBER: _ClassVar[int]
    MARK_FIELD_NUMBER: _ClassVar[int]
    ALERT_FIELD_NUMBER: _ClassVar[int]
    KPI_FIELD_NUMBER: _ClassVar[int]
    CHANGE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    STREAM_CLOSED_FIELD_NUMBER: _ClassVar[int]
    STREAM_ENDED_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_SET_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FILE_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    METRIC_DEFINED_FIELD_NUMBER: _ClassVar[int]
    CRC_FIELD_NUMBER: _ClassVar[int]
    stream_opened: StreamOpened
    key_set: KeySet
    step: Step
    sample: Sample
    log_line: LogLine
    config_set: ConfigSet
    figure: Figure
    artifact_ref: ArtifactRef
    dataset_use: DatasetUse
    mark: Mark
    alert: Alert
    kpi: Kpi
    change: Change
    heartbeat: Heartbeat
    gap: Gap
    stream_closed: StreamClosed
    stream_ended: StreamEnded
    summary_set: SummarySet
    environment: Environment
    source_file: SourceFile
    fingerprint: Fingerprint
    metric_defined: MetricDefined
    crc: int
    def __init__(self, stream_opened: _Optional[_Union[StreamOpened, _Mapping]] = ..., key_set: _Optional[_Union[KeySet, _Mapping]] = ..., step: _Optional[_Union[Step, _Mapping]] = ..., sample: _Optional[_Union[Sample, _Mapping]] = ..., log_line: _Optional[_Union[LogLine, _Mapping]] = ..., config_set: _Optional[_Union[ConfigSet, _Mapping]] = ..., figure: _Optional[_Union[Figure, _Mapping]] = ..., artifact_ref: _Optional[_Union[ArtifactRef, _Mapping]] = ..., dataset_use: _Optional[_Union[DatasetUse, _Mapping]] = ..., mark: _Optional[_Union[Mark, _Mapping]] = ..., alert: _Optional[_Union[Alert, _Mapping]] = ..., kpi: _Optional[_Union[Kpi, _Mapping]] = ..., change: _Optional[_Union[Change, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., stream_closed: _Optional[_Union[StreamClosed, _Mapping]] = ..., stream_ended: _Optional[_Union[StreamEnded, _Mapping]] = ..., summary_set: _Optional[_Union[SummarySet, _Mapping]] = ..., environment: _Optional[_Union[Environment, _Mapping]] = ..., source_file: _Optional[_Union[SourceFile, _Mapping]] = ..., fingerprint: _Optional[_Union[Fingerprint, _Mapping]] = ..., metric_defined: _Optional[_Union[MetricDefined, _Mapping]] = ..., crc: _Optional[int] = ...) -> None: ...

class StreamOpened(_message.Message):
    __slots__ = ("time_us", "role", "project", "run_id", "experiment", "name", "group", "job_type", "tags", "notes", "user", "host", "pid", "rank", "local_rank", "world_size", "launcher", "launch_id", "attempt", "resume_step", "sdk_version", "python_version", "git_commit", "git_remote", "git_branch", "command", "working_dir", "resumed_from")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    JOB_TYPE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    LOCAL_RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    LAUNCHER_FIELD_NUMBER: _ClassVar[int]
    LAUNCH_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RESUME_STEP_FIELD_NUMBER: _ClassVar[int]
    SDK_VERSION_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    GIT_COMMIT_FIELD_NUMBER: _ClassVar[int]
    GIT_REMOTE_FIELD_NUMBER: _ClassVar[int]
    GIT_BRANCH_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    WORKING_DIR_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FROM_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    role: Role
    project: str
    run_id: str
    experiment: str
    name: str
    group: str
    job_type: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    notes: str
    user: str
    host: str
    pid: int
    rank: int
    local_rank: int
    world_size: int
    launcher: str
    launch_id: str
    attempt: int
    resume_step: int
    sdk_version: str
    python_version: str
    git_commit: str
    git_remote: str
    git_branch: str
    command: _containers.RepeatedScalarFieldContainer[str]
    working_dir: str
    resumed_from: str
    def __init__(self, time_us: _Optional[int] = ..., role: _Optional[_Union[Role, str]] = ..., project: _Optional[str] = ..., run_id: _Optional[str] = ..., experiment: _Optional[str] = ..., name: _Optional[str] = ..., group: _Optional[str] = ..., job_type: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., notes: _Optional[str] = ..., user: _Optional[str] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., rank: _Optional[int] = ..., local_rank: _Optional[int] = ..., world_size: _Optional[int] = ..., launcher: _Optional[str] = ..., launch_id: _Optional[str] = ..., attempt: _Optional[int] = ..., resume_step: _Optional[int] = ..., sdk_version: _Optional[str] = ..., python_version: _Optional[str] = ..., git_commit: _Optional[str] = ..., git_remote: _Optional[str] = ..., git_branch: _Optional[str] = ..., command: _Optional[_Iterable[str]] = ..., working_dir: _Optional[str] = ..., resumed_from: _Optional[str] = ...) -> None: ...

class KeySet(_message.Message):
    __slots__ = ("id", "names")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    id: int
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[int] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("key_set", "step", "time_us", "values")
    KEY_SET_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    key_set: int
    step: int
    time_us: int
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, key_set: _Optional[int] = ..., step: _Optional[int] = ..., time_us: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ...) -> None: ...

class Sample(_message.Message):
    __slots__ = ("time_us", "readings", "rank")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    readings: _containers.RepeatedCompositeFieldContainer[Reading]
    rank: int
    def __init__(self, time_us: _Optional[int] = ..., readings: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ..., rank: _Optional[int] = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("device", "name", "value")
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    device: str
    name: str
    value: float
    def __init__(self, device: _Optional[str] = ..., name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("time_us", "console", "line")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    CONSOLE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    console: Console
    line: str
    def __init__(self, time_us: _Optional[int] = ..., console: _Optional[_Union[Console, str]] = ..., line: _Optional[str] = ...) -> None: ...

class ConfigSet(_message.Message):
    __slots__ = ("time_us", "entries", "removed")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    removed: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, time_us: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., removed: _Optional[_Iterable[str]] = ...) -> None: ...

class SummarySet(_message.Message):
    __slots__ = ("time_us", "entries")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, time_us: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("key", "json")
    KEY_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    key: str
    json: str
    def __init__(self, key: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...

class Figure(_message.Message):
    __slots__ = ("time_us", "name", "kind", "step", "json", "content", "content_type")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    name: str
    kind: str
    step: int
    json: str
    content: bytes
    content_type: str
    def __init__(self, time_us: _Optional[int] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., step: _Optional[int] = ..., json: _Optional[str] = ..., content: _Optional[bytes] = ..., content_type: _Optional[str] = ...) -> None: ...

class ArtifactRef(_message.Message):
    __slots__ = ("time_us", "name", "kind", "digest", "size", "uri", "json", "used")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    USED_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    name: str
    kind: str
    digest: str
    size: int
    uri: str
    json: str
    used: bool
    def __init__(self, time_us: _Optional[int] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., digest: _Optional[str] = ..., size: _Optional[int] = ..., uri: _Optional[str] = ..., json: _Optional[str] = ..., used: bool = ...) -> None: ...

class DatasetUse(_message.Message):
    __slots__ = ("time_us", "name", "version", "role", "digest", "rows", "size", "uri", "json")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    name: str
    version: str
    role: str
    digest: str
    rows: int
    size: int
    uri: str
    json: str
    def __init__(self, time_us: _Optional[int] = ..., name: _Optional[str] = ..., version: _Optional[str] = ..., role: _Optional[str] = ..., digest: _Optional[str] = ..., rows: _Optional[int] = ..., size: _Optional[int] = ..., uri: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...

class Mark(_message.Message):
    __slots__ = ("time_us", "text", "step", "duration_us")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    text: str
    step: int
    duration_us: int
    def __init__(self, time_us: _Optional[int] = ..., text: _Optional[str] = ..., step: _Optional[int] = ..., duration_us: _Optional[int] = ...) -> None: ...

class Alert(_message.Message):
    __slots__ = ("time_us", "title", "text", "level", "step")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    title: str
    text: str
    level: str
    step: int
    def __init__(self, time_us: _Optional[int] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., level: _Optional[str] = ..., step: _Optional[int] = ...) -> None: ...

class Kpi(_message.Message):
    __slots__ = ("time_us", "subject", "name", "value", "unit", "json")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    subject: str
    name: str
    value: float
    unit: str
    json: str
    def __init__(self, time_us: _Optional[int] = ..., subject: _Optional[str] = ..., name: _Optional[str] = ..., value: _Optional[float] = ..., unit: _Optional[str] = ..., json: _Optional[str] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("time_us", "actor", "subject", "kind", "reason", "before", "after")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    actor: str
    subject: str
    kind: str
    reason: str
    before: str
    after: str
    def __init__(self, time_us: _Optional[int] = ..., actor: _Optional[str] = ..., subject: _Optional[str] = ..., kind: _Optional[str] = ..., reason: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("time_us", "streams")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    streams: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, time_us: _Optional[int] = ..., streams: _Optional[_Iterable[str]] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("time_us", "reason", "records", "points", "length", "detail")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    reason: str
    records: int
    points: int
    length: int
    detail: str
    def __init__(self, time_us: _Optional[int] = ..., reason: _Optional[str] = ..., records: _Optional[int] = ..., points: _Optional[int] = ..., length: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class StreamClosed(_message.Message):
    __slots__ = ("time_us", "exit_code", "reason", "signal", "records", "points", "preempted", "elapsed_us")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTED_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_US_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    exit_code: int
    reason: str
    signal: str
    records: int
    points: int
    preempted: bool
    elapsed_us: int
    def __init__(self, time_us: _Optional[int] = ..., exit_code: _Optional[int] = ..., reason: _Optional[str] = ..., signal: _Optional[str] = ..., records: _Optional[int] = ..., points: _Optional[int] = ..., preempted: bool = ..., elapsed_us: _Optional[int] = ...) -> None: ...

class StreamEnded(_message.Message):
    __slots__ = ("time_us", "stream", "offset", "exit_code", "signal", "closed")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    stream: str
    offset: int
    exit_code: int
    signal: str
    closed: bool
    def __init__(self, time_us: _Optional[int] = ..., stream: _Optional[str] = ..., offset: _Optional[int] = ..., exit_code: _Optional[int] = ..., signal: _Optional[str] = ..., closed: bool = ...) -> None: ...

class Environment(_message.Message):
    __slots__ = ("time_us", "json")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    json: str
    def __init__(self, time_us: _Optional[int] = ..., json: _Optional[str] = ...) -> None: ...

class SourceFile(_message.Message):
    __slots__ = ("time_us", "path", "kind", "digest", "size", "content", "truncated", "note", "part", "parts")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    path: str
    kind: str
    digest: str
    size: int
    content: bytes
    truncated: bool
    note: str
    part: int
    parts: int
    def __init__(self, time_us: _Optional[int] = ..., path: _Optional[str] = ..., kind: _Optional[str] = ..., digest: _Optional[str] = ..., size: _Optional[int] = ..., content: _Optional[bytes] = ..., truncated: bool = ..., note: _Optional[str] = ..., part: _Optional[int] = ..., parts: _Optional[int] = ...) -> None: ...

class Fingerprint(_message.Message):
    __slots__ = ("time_us", "code", "config", "data", "environment")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    code: str
    config: str
    data: str
    environment: str
    def __init__(self, time_us: _Optional[int] = ..., code: _Optional[str] = ..., config: _Optional[str] = ..., data: _Optional[str] = ..., environment: _Optional[str] = ...) -> None: ...

class MetricDefined(_message.Message):
    __slots__ = ("time_us", "name", "goal", "x", "summary")
    TIME_US_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GOAL_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    time_us: int
    name: str
    goal: str
    x: str
    summary: str
    def __init__(self, time_us: _Optional[int] = ..., name: _Optional[str] = ..., goal: _Optional[str] = ..., x: _Optional[str] = ..., summary: _Optional[str] = ...) -> None: ...
