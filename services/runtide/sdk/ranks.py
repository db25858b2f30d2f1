"""Which process of which job this is, read from what launchers leave in the environment.

Ranks of one job must come to the same run id without a shared file, and two jobs never to the same one. A job id that
the launcher vouches for does that. Where it gives none, the ranks of one node share the process that launched them.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

_NO_JOB = frozenset({"", "none", "null", "0x0"})
_ID_CHARS = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process stands in its job."""

    launcher: str
    """torchrun, slurm, openmpi, pmi or none."""
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    one_node: bool = True
    job: tuple[str, ...] = ()
    """What names the job on every rank of it; empty where the launcher names none."""
    start: tuple[str, ...] = ()
    """What tells this start of the job from another one, on every rank of it."""
    restarts: int = 0
    """How often the launcher has started the job again by itself."""
    again: bool = False
    """Whether launcher or scheduler say that this start continues an earlier one."""
    marker: str = ""
    """The variable that the launcher sets for its processes and does not have itself; empty without a launcher."""
    meeting: tuple[str, ...] = ()
    """What tells jobs of one launching process apart, where the launcher is no single job's."""


def place(env: Mapping[str, str]) -> Place:
    """Read the environment. The innermost launcher wins: torchrun within Slurm is torchrun."""
    for read in (_torchrun, _openmpi, _pmi, _slurm):
        if found := read(env):
            return found
    return Place("none")


def nodes_unnamed(found: Place) -> bool:
    """Whether the job spans nodes and nothing says which job it is: its nodes cannot find each other."""
    return not found.one_node and not found.job


def launching_process(found: Place) -> str:
    """Name the process that launched this rank: host boot, pid and start time, the same for all ranks of the node.

    The nearest ancestor without the launcher's own variable, so that a shell between launcher and rank does no harm.
    """
    import psutil

    from runtide.spool import layout

    process = psutil.Process()
    chosen = process
    if found.marker:
        for ancestor in process.parents():
            chosen = ancestor
            try:
                if found.marker not in ancestor.environ():
                    break
            except psutil.Error:
                break
    return f"{layout.host_key()}/{chosen.pid}/{chosen.create_time():.2f}"


def ancestors() -> list[int]:
    """The pids of this process's parent, its parent, and so on."""
    import psutil

    return [ancestor.pid for ancestor in psutil.Process().parents()]


def derive(*parts: str) -> str:
    """Make an id of what names it; the same parts give the same id everywhere."""
    digest = hashlib.sha256("\x1f".join(parts).encode("utf-8", "replace")).digest()
    return _spell(int.from_bytes(digest, "big"))


def random_id() -> str:
    """Make an id that nobody else has."""
    return _spell(int.from_bytes(os.urandom(16), "big"))


def script() -> str:
    """What tells two single-process jobs of one batch script apart: the command."""
    return "\x1f".join(sys.argv)


def _torchrun(env: Mapping[str, str]) -> Place | None:
    rank, world = _int(env, "RANK"), _int(env, "WORLD_SIZE")
    if rank is None or world is None:
        return None
    elastic = "TORCHELASTIC_RUN_ID" in env
    one_node = _torch_on_one_node(env, world)
    job = _job(env, "TORCHELASTIC_RUN_ID")
    if env.get("SLURM_JOB_ID") and (job or (not one_node and env.get("SLURM_STEP_ID"))):
        step = () if job else (env["SLURM_STEP_ID"],)
        job = (*job, env.get("SLURM_CLUSTER_NAME", ""), env["SLURM_JOB_ID"], *step)
    restarts = _int(env, "TORCHELASTIC_RESTART_COUNT") or 0
    meeting = (env.get("MASTER_ADDR", ""), env.get("MASTER_PORT", ""))
    return Place(
        "torchrun",
        rank=rank,
        local_rank=_int(env, "LOCAL_RANK") or 0,
        world_size=max(world, 1),
        one_node=one_node,
        job=job,
        start=meeting,
        restarts=restarts,
        again=restarts > 0 or (_int(env, "SLURM_RESTART_COUNT") or 0) > 0,
        # a lone process with the variables set by hand has no launcher that it shares with others
        marker="RANK" if elastic or world > 1 else "",
        # torchelastic may meet elsewhere after a restart; without it the meeting point tells jobs of one shell apart
        meeting=() if elastic else meeting,
    )


def _torch_on_one_node(env: Mapping[str, str], world: int) -> bool:
    if (nodes := _int(env, "GROUP_WORLD_SIZE")) is not None:
        return nodes <= 1
    if (local := _int(env, "LOCAL_WORLD_SIZE")) is not None:
        return local >= world
    address = env.get("MASTER_ADDR", "localhost")
    return world <= 1 or address in {"", "localhost", "::1"} or address.startswith("127.")


def _slurm(env: Mapping[str, str]) -> Place | None:
    rank, world = _int(env, "SLURM_PROCID"), _int(env, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS")
    step = env.get("SLURM_STEP_ID", env.get("SLURM_STEPID", ""))
    if rank is None or not step or not env.get("SLURM_JOB_ID") or _interactive(env):
        return None  # a batch script itself is no task: two commands in it are two jobs
    world = world or 1
    restarts = _int(env, "SLURM_RESTART_COUNT") or 0
    job = (env.get("SLURM_CLUSTER_NAME", ""), env["SLURM_JOB_ID"], step)
    return Place(
        "slurm",
        rank=rank,
        local_rank=_int(env, "SLURM_LOCALID") or 0,
        world_size=world,
        one_node=(_int(env, "SLURM_STEP_NUM_NODES", "SLURM_NNODES") or 1) <= 1,
        job=job if world > 1 else (*job, script()),
        restarts=restarts,
        again=restarts > 0,
        marker="SLURM_PROCID",
    )


def _interactive(env: Mapping[str, str]) -> bool:
    return "SLURM_PTY_PORT" in env or env.get("SLURM_JOB_NAME") in {"bash", "sh", "zsh", "interactive"}


def _openmpi(env: Mapping[str, str]) -> Place | None:
    rank, world = _int(env, "OMPI_COMM_WORLD_RANK"), _int(env, "OMPI_COMM_WORLD_SIZE")
    if rank is None or world is None:
        return None
    named = _job(env, "PMIX_NAMESPACE") or _job(env, "OMPI_MCA_ess_base_jobid")
    contact = _job(env, "OMPI_MCA_orte_hnp_uri")  # has the port of mpirun, which its small job ids lack
    local = _int(env, "OMPI_COMM_WORLD_LOCAL_SIZE")
    batch = _job(env, "SLURM_JOB_ID") or _job(env, "PBS_JOBID") or _job(env, "LSB_JOBID")
    one_node = local is None or local >= world
    return Place(
        "openmpi",
        rank=rank,
        local_rank=_int(env, "OMPI_COMM_WORLD_LOCAL_RANK") or 0,
        world_size=max(world, 1),
        one_node=one_node,
        # on one node mpirun's own process says more than its job id, which pids make and so come again
        job=() if one_node else (*batch, *named, *contact) if named else (),
        marker="OMPI_COMM_WORLD_RANK",
    )


def _pmi(env: Mapping[str, str]) -> Place | None:
    rank, world = _int(env, "PMI_RANK"), _int(env, "PMI_SIZE")
    if rank is None or world is None or env.get("SLURM_STEP_ID"):
        return None  # srun with a PMI plugin sets these too, and says more in its own variables
    local = _int(env, "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "PALS_LOCAL_SIZE")
    one_node = world <= 1 or (local or world) >= world
    batch = _job(env, "PALS_APID") or (*_job(env, "PBS_JOBID"), *_job(env, "PMI_JOBID"))
    return Place(
        "pmi",
        rank=rank,
        local_rank=_int(env, "MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID") or 0,
        world_size=max(world, 1),
        one_node=one_node,
        job=() if one_node else batch,
        marker="PMI_RANK",
    )


def _job(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    value = env.get(name, "").strip()
    return () if value.lower() in _NO_JOB else (value,)


def _int(env: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        try:
            return int(env[name])
        except (KeyError, ValueError):
            continue
    return None


def _spell(number: int) -> str:
    out = []
    for _ in range(_ID_LENGTH):
        number, digit = divmod(number, len(_ID_CHARS))
        out.append(_ID_CHARS[digit])
    return "".join(out)
