"""Settings of the services: `RUNTIDE_*` variables over a TOML file (`RUNTIDE_CONFIG`) over these defaults.

Read here only; every part gets what it needs through its constructor. A nested field is spelled with its section:
`RUNTIDE_KAFKA_BOOTSTRAP`, or `[kafka] bootstrap = ...` in the file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from runtide.wire.errors import BadInput

_SECRET = re.compile("PASSWORD|SECURITY|TOKEN")
"""Variables whose values are shown to nobody."""


class _Section(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", frozen=True)


class KafkaSection(_Section):
    """Where Kafka is and how topics are made: RUNTIDE_KAFKA_*."""

    bootstrap: str = ""
    """Brokers as host:port, joined by commas."""
    topic_prefix: str = "runtide"
    """First part of every topic's name."""
    partitions: int = Field(default=12, ge=1)
    """Partitions of the records topic, where it is made by runtide."""
    replication: int = Field(default=1, ge=1)
    """Copies of every partition, where the topic is made by runtide."""
    retention_hours: int = Field(default=168, ge=1)
    """How long the topic keeps records, where it is made by runtide: the longest outage that loses nothing."""
    retention_bytes: int = Field(default=16 * 1024**3, ge=-1)
    """Bytes that it keeps of one partition, whatever their age; -1 for no bound."""
    send_timeout_s: float = Field(default=10.0, gt=0)
    """After this long without an answer from the brokers a Push is answered UNAVAILABLE."""
    group: str = "runtide-sink"
    """Consumer group of the sinks."""
    session_timeout_s: float = Field(default=10.0, gt=0)
    """A sink that the brokers have not heard of for this long loses its partitions to the others."""
    security: dict[str, str] = Field(default_factory=dict)
    """Handed on to the Kafka client: security_protocol, sasl_*, ssl_cafile, ssl_certfile, ssl_keyfile (JSON)."""


class ClickHouseSection(_Section):
    """Where ClickHouse is: RUNTIDE_CLICKHOUSE_*."""

    host: str = "127.0.0.1"
    """Host of the HTTP interface."""
    port: int = 8123
    """Port of the HTTP interface."""
    username: str = "default"
    """User; services need one that may write, reading commands one that may read."""
    password: str = ""
    """Its password."""
    database: str = "runtide"
    """Where names without a database are looked up; runtide's own tables and views stand in `runtide` always."""
    secure: bool = False
    """HTTPS instead of HTTP."""
    ca_file: str = ""
    """PEM of the authority that signed its certificate; the system's ones without it."""
    cert_file: str = ""
    """PEM of the client certificate, where the server asks for one."""
    key_file: str = ""
    """PEM of the client certificate's key."""


class GatewaySection(_Section):
    """Where the gateway listens and whom it lets in: RUNTIDE_GATEWAY_*."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs TLS, and tokens (`runtide token create`)."""
    port: int = 7171
    """gRPC."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics and /healthz."""
    metrics_port: int = 7172
    """Port of /metrics and /healthz."""
    tls_cert: Path | None = None
    """PEM of the certificate chain."""
    tls_key: Path | None = None
    """PEM of its key."""
    tls_client_ca: Path | None = None
    """PEM of the authority whose client certificates are let in; without it none is asked for."""
    allow_plaintext: bool = False
    """Listen beyond loopback without TLS, because a proxy in front does it."""
    limits: dict[str, PositiveInt] = Field(default_factory=dict)
    """Limits that differ from the defaults, by the names that Preflight tells (JSON in a variable)."""

    def url(self, host: str, port: int) -> str:
        """How agents and commands call it there."""
        return f"{'grpcs' if self.tls_cert else 'grpc'}://{host}:{port}"


class SinkSection(_Section):
    """What stores: RUNTIDE_SINK_*."""

    flood_records: int = Field(default=100, ge=0)
    """So many refused records in a row are looked at: is it this release, then their partition stops. 0 never stops."""
    accept_loss: str = ""
    """Losses to Kafka's retention that are accepted, as the sink names them: TOPIC:PARTITION:OFFSET, by commas."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz of `runtide sink`."""
    metrics_port: int | None = None
    """Their port; without one they are not served. `runtide up` has them with the gateway's."""


class CanarySection(_Section):
    """The canary of `runtide up --canary` and `runtide canary`: RUNTIDE_CANARY_*."""

    interval_s: float = Field(default=60.0, gt=0, le=3600)
    """Seconds between two beats."""
    token: str = ""
    """Writer token of the project runtide-canary, where the gateway asks for tokens."""
    metrics_host: str = "127.0.0.1"
    """Address of its /metrics, /healthz and /readyz."""
    metrics_port: int = 7173
    """Their port."""


class ProcessorSection(_Section):
    """The Faust worker of Kafka mode: RUNTIDE_PROCESSOR_*."""

    host: str = "127.0.0.1"
    """Address of its web server."""
    port: int = 6066
    """Port of its web server."""


class Settings(BaseSettings):
    """All settings of the services: RUNTIDE_*."""

    model_config = SettingsConfigDict(
        env_prefix="RUNTIDE_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    home: Path = Path("~/.runtide")
    """Data of `runtide up`: ClickHouse's files, logs, the writer's password."""
    dashboard_host: str = "127.0.0.1"
    """Address that the dashboard listens on."""
    dashboard_port: int = 8501
    """Port of the dashboard."""
    dashboard_sign_in: Literal["", "token", "oidc"] = ""
    """Who sees the pages: whoever reaches them (loopback only), who holds a token, or who signs in by OIDC."""
    dashboard_names: str = ""
    """Names, joined by commas, under which a proxy asks for the pages though nobody signs in; else only localhost."""
    dashboard_gateway: str = "grpc://127.0.0.1:7171"
    """The gateway that says whether a token is good, and takes what the pages change; grpcs:// with RUNTIDE_CA_FILE."""
    dashboard_token: str = Field(default="", repr=False)
    """Admin token with which whoever sees the pages rules on dead letters; with sign-in `token` each has their own."""
    artifacts: str = ""
    """Where artifacts' files are kept: a folder, or s3://BUCKET/PREFIX (needs `runtide[s3]`); empty: HOME/artifacts."""
    bus_bytes: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Bytes that the in-process bus of `runtide up` holds before jobs are told to wait."""
    retention_days: int = Field(default=0, ge=0, le=65535)
    """Raw rows go after so many days; 0 keeps them for ever."""
    prices: Path | None = None
    """The TOML file that `runtide prices apply` takes where none is named."""
    kafka: KafkaSection = KafkaSection()
    """Kafka mode only."""
    clickhouse: ClickHouseSection = ClickHouseSection()
    """The warehouse."""
    gateway: GatewaySection = GatewaySection()
    """The gateway."""
    sink: SinkSection = SinkSection()
    """The sink."""
    processor: ProcessorSection = ProcessorSection()
    """The processor."""
    canary: CanarySection = CanarySection()
    """The canary."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over variables, variables over the file."""
        path = os.environ.get("RUNTIDE_CONFIG")
        file = (TomlConfigSettingsSource(settings_cls, Path(path)),) if path else ()
        return (init_settings, env_settings, *file)

    @property
    def home_folder(self) -> Path:
        """`home` as an absolute path."""
        return self.home.expanduser().absolute()


def read_settings(home: Path | None = None) -> Settings:
    """Read variables and file; `home` given on the command line wins. Raises BadInput naming field and reason."""
    path = os.environ.get("RUNTIDE_CONFIG")
    if path and not Path(path).is_file():
        raise BadInput("RUNTIDE_CONFIG", path, "it must name a TOML file that exists")
    try:
        return Settings() if home is None else Settings(home=home)
    except ValidationError as error:
        first = error.errors()[0]
        name = "RUNTIDE_" + "_".join(str(part) for part in first["loc"]).upper()
        told = first["type"] != "extra_forbidden" and not _SECRET.search(name)
        raise BadInput(name, repr(first["input"]) if told else "set to something", first["msg"]) from error
    except ValueError as error:  # not TOML, or a section's JSON is not JSON
        raise BadInput(f"RUNTIDE_CONFIG={path}" if path else "RUNTIDE_*", "not readable", str(error)) from error
