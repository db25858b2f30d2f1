"""What ran, as far as the job itself has to say it: the entry script, configuration files, chosen variables.

Promises: some milliseconds in init, no process started, nothing imported that the job did not import itself. What takes
longer, such as git and the list of packages, the agent collects: `task` tells it where.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from runtide.sdk import capture
from runtide.sdk.masking import mask
from runtide.sdk.settings import Settings
from runtide.spool.capture import CaptureTask
from runtide.v1.records_pb2 import Fingerprint, SourceFile
from runtide.wire import limits
from runtide.wire.errors import BadInput
from runtide.wire.source_files import PART_BYTES, kept

ENTRY_BYTES = 8 * limits.MIB
"""What is read of a script; what is kept of it is one part."""
CONFIG_FILE_BYTES = limits.MIB
_KERNEL = "ipykernel_launcher.py"
_VARIABLES = 500
_VALUE_CHARS = 4000
_JOB_IDS = (
    ("slurm", "SLURM_JOB_ID"),
    ("pbs", "PBS_JOBID"),
    ("lsf", "LSB_JOBID"),
    ("flux", "FLUX_JOB_ID"),
    ("cobalt", "COBALT_JOBID"),
    ("aws-batch", "AWS_BATCH_JOB_ID"),
    ("sagemaker", "TRAINING_JOB_NAME"),
    ("vertex", "CLOUD_ML_JOB_ID"),
    ("azureml", "AZUREML_RUN_ID"),
    ("ray", "RAY_JOB_ID"),
)
_IMAGES = ("SINGULARITY_CONTAINER", "APPTAINER_CONTAINER", "SLURM_CONTAINER", "CONTAINER_IMAGE", "DOCKER_IMAGE")


def task(told: Settings, entry: str, *, by_job: bool = False) -> CaptureTask:
    """What the agent has to know; `entry` is the digest of the script or notebook."""
    git = capture.git(capture.code_folder())
    home = Path(os.environ.get("RUNTIDE_HOME") or "~/.runtide").expanduser().absolute()
    scheduler, job_id = _scheduler(os.environ)
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "prefix": sys.prefix,
        "command": capture.command(),
        "working_dir": capture.working_dir(),
        "git": {"commit": git.commit, "branch": git.branch, "remote": git.remote},
        "scheduler": scheduler,
        "job_id": job_id,
        "image": next((os.environ[name] for name in _IMAGES if os.environ.get(name)), ""),
        "cuda_of_torch": str(getattr(getattr(sys.modules.get("torch"), "version", None), "cuda", None) or ""),
        "variables": variables(os.environ, told.capture_env),
    }
    return CaptureTask(
        time_us=time.time_ns() // 1000,
        folder=str(capture.code_folder()),
        search=tuple(str(Path(each or ".").absolute()) for each in sys.path),
        leave_out=(str(told.root), str(home)),
        entry=entry,
        facts=facts,
        by_job=by_job,
    )


def variables(env: Mapping[str, str], patterns: tuple[str, ...]) -> dict[str, str]:
    """The environment variables that were chosen, secrets masked."""
    chosen = [name for name in sorted(env) if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return {_utf8(name): _utf8(str(mask(name, env[name][:_VALUE_CHARS]))) for name in chosen[:_VARIABLES]}


def entry_script() -> Iterator[SourceFile]:
    """The script that runs, or the code of `python -c`; nothing where there is neither, as in a console."""
    path = _script()
    if path is not None:
        with path.open("rb") as file:
            content = file.read(ENTRY_BYTES)
        yield from kept(shown(path), "entry", content, time.time_ns() // 1000, most=PART_BYTES)
    elif (code := _code_of_command()) is not None:
        yield from kept("-c", "entry", code.encode("utf-8", "replace"), time.time_ns() // 1000, most=PART_BYTES)


def config_file(path: str | os.PathLike[str]) -> Iterator[SourceFile]:
    """A configuration file. Raises BadInput and OSError."""
    if not isinstance(path, str | os.PathLike):
        raise BadInput("path", repr(path)[:80], "it is the path of a file")
    file = Path(path)
    if file.is_dir():
        raise BadInput("path", repr(str(path)), "it is the path of a file; a folder is an artifact")
    if (size := file.stat().st_size) > CONFIG_FILE_BYTES:
        raise BadInput("path", f"{path} of {size} bytes", f"a configuration file has at most {CONFIG_FILE_BYTES} bytes")
    yield from kept(shown(file), "config", file.read_bytes(), time.time_ns() // 1000)


def shown(path: Path) -> str:
    """A path below its repository's root where it lies in one, else as it stands on this host."""
    found = path.absolute()
    root = capture.git_root(found.parent)
    if root is not None and root in found.parents:
        return found.relative_to(root).as_posix()
    return found.as_posix()


def config_fingerprint(entries: Mapping[str, str]) -> Fingerprint:
    """Of a configuration: names to values as JSON."""
    text = "".join(f"{name}={entries[name]}\n" for name in sorted(entries))
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return Fingerprint(time_us=time.time_ns() // 1000, config=digest)


def _script() -> Path | None:
    """The file of __main__; in a notebook that is the kernel's, and in a console of IPython its starter's."""
    told = getattr(sys.modules.get("__main__"), "__file__", None) or (sys.argv[0] if sys.argv else "")
    path = Path(told) if told else None
    if path is None or not path.is_file() or path.name == _KERNEL or path.parent.name == "IPython":
        return None
    return None if "IPython" in sys.modules and path.suffix != ".py" else path


def _code_of_command() -> str | None:
    given = list(getattr(sys, "orig_argv", ()))
    if not sys.argv or sys.argv[0] != "-c" or "-c" not in given:
        return None
    at = given.index("-c") + 1
    return given[at] if at < len(given) else None


def _scheduler(env: Mapping[str, str]) -> tuple[str, str]:
    for name, variable in _JOB_IDS:
        if env.get(variable):
            return name, env[variable]
    if env.get("JOB_ID") and env.get("SGE_ROOT"):
        return "sge", env["JOB_ID"]
    if env.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes", env.get("POD_NAME") or env.get("HOSTNAME", "")
    return "", ""


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
