"""What init() was told: arguments first, then RUNTIDE_* variables, then defaults.

Raises BadInput for what cannot be, naming field, value and what is allowed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from runtide.sdk.identity import RESUMES, lives, parse_resume_from
from runtide.spool.layout import default_root, tenant, tls_files
from runtide.wire import limits
from runtide.wire.books import MARK, is_book
from runtide.wire.errors import BadInput

DEFAULT_PORT = 7171
DEFAULT_URL = f"grpc://127.0.0.1:{DEFAULT_PORT}"
ONLINE, OFFLINE, DISABLED = "online", "offline", "disabled"
MODES = (ONLINE, OFFLINE, DISABLED)
WARN, ASK, SKIP, ATTACH, IGNORE = "warn", "ask", "skip", "attach", "ignore"
POLICIES = (WARN, ASK, SKIP, ATTACH, IGNORE)
SCHEMES = ("grpc://", "grpcs://")
_TENSORFLOW = (
    *("TF_CONFIG", "TF_CPP_*", "TF_CUDNN_*", "TF_DETERMINISTIC_OPS", "TF_DISABLE_*", "TF_ENABLE_*", "TF_FORCE_*"),
    *("TF_GPU_*", "TF_NUM_*", "TF_USE_*", "TF_XLA_*"),
)
"""Not all that begins with TF_: Terraform's variables do as well, and they hold credentials."""
CAPTURE_ENV = (
    *("CUDA_*", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "NCCL_*", "XLA_*", "JAX_*"),
    *("TORCH_*", "PYTORCH_*", "OMP_*", "MKL_*", "KMP_*", "OPENBLAS_*", "TOKENIZERS_PARALLELISM", "HF_HOME"),
    *_TENSORFLOW,
    *("PYTHONHASHSEED", "PYTHONPATH", "CONDA_DEFAULT_ENV", "VIRTUAL_ENV", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("SLURM_JOB_*", "SLURM_ARRAY_*", "SLURM_NNODES", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK"),
)
"""The environment variables that are kept where RUNTIDE_CAPTURE_ENV says nothing."""
_OFF = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides how a run is opened."""

    project: str = ""
    """Empty leaves it to the token, else "default"."""
    experiment: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    group: str = ""
    job_type: str = ""
    run_id: str = ""
    resume: str = "never"
    resume_run: str = ""
    resume_step: int | None = None
    mode: str = ONLINE
    root: Path = Path()
    """The spool root."""
    url: str = ""
    token: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    capture_console: bool = True
    capture: bool = True
    """Whether code and environment are kept."""
    capture_env: tuple[str, ...] = CAPTURE_ENV
    """Patterns of the environment variables that are."""
    start_agent: bool = True
    on_duplicate: str = WARN
    """What is done where the same has been run before: one of POLICIES."""
    budget_bytes: int = limits.SPOOL_BYTES

    @property
    def tenant(self) -> str:
        """What tells projects apart on this disk."""
        return tenant(self.project, self.token)


def settings(
    env: Mapping[str, str],
    *,
    project: str | None = None,
    experiment: str | None = None,
    name: str | None = None,
    tags: Iterable[str] | str | None = None,
    notes: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    run_id: str | None = None,
    resume: str | bool | None = None,
    resume_from: str | None = None,
    mode: str | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002  the name that users know
    url: str | None = None,
    token: str | None = None,
    capture_console: bool | None = None,
    on_duplicate: str | None = None,
) -> Settings:
    """Put arguments, environment and defaults together."""
    resumed = parse_resume_from(str(resume_from)) if resume_from else ("", None)
    chosen_mode = _choice("mode", mode, env, "RUNTIDE_MODE", ONLINE, MODES)
    ca_file, cert_file, key_file = tls_files(env)
    return Settings(
        project=_identity("project", _text(project, env, "RUNTIDE_PROJECT")),
        experiment=_short("experiment", _text(experiment, env, "RUNTIDE_EXPERIMENT")),
        name=_short("name", _text(name, env, "RUNTIDE_NAME")),
        tags=_tags(tags, env),
        notes=_text(notes, env, "RUNTIDE_NOTES")[: limits.LOG_LINE_BYTES],
        group=_short("group", _text(group, env, "RUNTIDE_GROUP")),
        job_type=_short("job_type", _text(job_type, env, "RUNTIDE_JOB_TYPE")),
        run_id=_run_id(_text(run_id, env, "RUNTIDE_RUN_ID")),
        resume=_resume(resume, env),
        resume_run=_identity("resume_from", resumed[0]),
        resume_step=resumed[1],
        mode=chosen_mode,
        root=_root(dir),
        url=_url(_text(url, env, "RUNTIDE_URL") or local_url(env), chosen_mode),
        token=_text(token, env, "RUNTIDE_TOKEN"),
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        capture_console=_switch(capture_console, env, "RUNTIDE_CONSOLE"),
        capture=_switch(None, env, "RUNTIDE_CAPTURE"),
        capture_env=_patterns(env),
        start_agent=chosen_mode == ONLINE and env.get("RUNTIDE_AGENT", "") != "external",
        on_duplicate=_choice("on_duplicate", on_duplicate, env, "RUNTIDE_ON_DUPLICATE", WARN, POLICIES),
        budget_bytes=_budget(env),
    )


def _text(given: str | None, env: Mapping[str, str], variable: str) -> str:
    return str(given) if given is not None else env.get(variable, "")


def _choice(
    field: str, given: str | None, env: Mapping[str, str], variable: str, default: str, allowed: tuple[str, ...]
) -> str:
    value = (_text(given, env, variable) or default).lower()
    if value not in allowed:
        raise BadInput(field, repr(value), f"it is one of {', '.join(allowed)}")
    return value


def _resume(given: str | bool | None, env: Mapping[str, str]) -> str:
    if isinstance(given, bool):
        return "auto" if given else "never"
    # "never" is the default of the argument, so the variable may still say otherwise
    return _choice("resume", None if given == "never" else given, env, "RUNTIDE_RESUME", "never", RESUMES)


def _identity(field: str, value: str) -> str:
    size = len(value.encode("utf-8", "replace"))
    if size > limits.IDENTITY_BYTES:
        raise BadInput(field, f"{size} bytes long", f"it has at most {limits.IDENTITY_BYTES} bytes")
    if value != value.strip() or not value.isprintable() or "/" in value:
        raise BadInput(field, repr(value), "it has printable characters without '/', and no space at its ends")
    return value


def _run_id(value: str) -> str:
    if " " in value:
        raise BadInput("run_id", repr(value), "it has no space: commands and addresses take it as one word")
    if is_book(value):
        raise BadInput("run_id", repr(value), f"it does not begin with {MARK}: so do the books of a project")
    return _identity("run_id", value)


def _short(field: str, value: str) -> str:
    size = len(value.encode("utf-8", "replace"))
    if size > limits.NAME_BYTES:
        raise BadInput(field, f"{size} bytes long", f"it has at most {limits.NAME_BYTES} bytes")
    return value


def _tags(given: Iterable[str] | str | None, env: Mapping[str, str]) -> tuple[str, ...]:
    if given is None:
        given = [tag.strip() for tag in env.get("RUNTIDE_TAGS", "").split(",")]
    elif isinstance(given, str):
        given = [given]
    elif not isinstance(given, Iterable):
        raise BadInput("tags", repr(given)[:80], "they are a text or several texts")
    again = env.get("RUNTIDE_REPRODUCES", "")  # set by `runtide reproduce`: which run this one repeats
    every = [*given, *([f"reproduces:{again}"] if again else [])]
    return tuple(dict.fromkeys(_short("tags", str(tag)) for tag in every if str(tag)))


def local_url(env: Mapping[str, str]) -> str:
    """The gateway of the `runtide up` that runs in this home, where that is not the default one; else empty."""
    home = Path(env.get("RUNTIDE_HOME") or "~/.runtide").expanduser()
    try:
        up = json.loads((home / "up.json").read_text())
        if not lives(int(up["pid"]), float(up["started"])):
            return ""
        return str(up["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _root(given: str | os.PathLike[str] | None) -> Path:
    if given is None:
        return default_root()
    if not isinstance(given, str | os.PathLike):
        raise BadInput("dir", repr(given)[:80], "it is a path")
    return Path(given).expanduser().absolute()


def _url(value: str, mode: str) -> str:
    if not value:
        return DEFAULT_URL if mode == ONLINE else ""
    if "://" not in value:
        value = f"grpc://{value}"
    if not value.startswith(SCHEMES):
        raise BadInput("url", repr(value), "it begins with grpc:// or grpcs://")
    return _with_port(value.rstrip("/"))


def _with_port(url: str) -> str:
    """An address as it is shown and asked: with its port. What cannot be one is left to who asks there."""
    try:
        parts = urlsplit(url)
        bare = bool(parts.hostname) and parts.port is None and not parts.path and not parts.netloc.endswith(":")
    except ValueError:
        return url
    return f"{url}:{DEFAULT_PORT}" if bare else url


def _switch(given: bool | None, env: Mapping[str, str], variable: str) -> bool:
    return given if given is not None else env.get(variable, "1").strip().lower() not in _OFF


def _patterns(env: Mapping[str, str]) -> tuple[str, ...]:
    told = env.get("RUNTIDE_CAPTURE_ENV")
    return CAPTURE_ENV if told is None else tuple(filter(None, (each.strip() for each in told.split(","))))


def _budget(env: Mapping[str, str]) -> int:
    told = env.get("RUNTIDE_SPOOL_MB", "")
    if not told:
        return limits.SPOOL_BYTES
    try:
        found = int(float(told) * limits.MIB)
    except ValueError:
        raise BadInput("RUNTIDE_SPOOL_MB", repr(told), "it is a number of MiB") from None
    if found <= 0:
        raise BadInput("RUNTIDE_SPOOL_MB", told, "it is above 0")
    return found
