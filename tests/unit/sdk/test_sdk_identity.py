"""Ranks, run ids, launches and attempts: one job is one run, two jobs are two."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from runtide.sdk.agent_link import Preflight
from runtide.sdk.ended import EndedHere
from runtide.sdk.identity import Asked, NoSuchRun, identify, parse_resume_from
from runtide.sdk.ranks import Place, nodes_unnamed, place
from runtide.sdk.settings import settings
from runtide.spool.layout import StreamInfo
from runtide.v1 import records_pb2 as wire
from runtide.wire.errors import BadInput

TORCHRUN = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_RUN_ID": "job-17",
    "TORCHELASTIC_RESTART_COUNT": "2",
}
SLURM = {
    "SLURM_JOB_ID": "99",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_NNODES": "2",
    "SLURM_CLUSTER_NAME": "big",
}
# starts N "ranks" as torchrun does: children of one process, with the default run id "none"
LAUNCHER = """
import os, subprocess, sys
world = int(sys.argv[1])
script = "import runtide; runtide.init('p').log({'a': 1}); runtide.init('p').log({'b': 1})"
common = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "GROUP_WORLD_SIZE": "1",
          "TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
for restart in (0, 1):
    ranks = []
    for rank in range(world):
        env = {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank),
               "TORCHELASTIC_RESTART_COUNT": str(restart)}
        command = [sys.executable, "-c", script]
        if rank == 1:
            command = ["/bin/sh", "-c", '"$@"; exit $?', "sh", *command]  # a wrapper between launcher and rank
        ranks.append(subprocess.Popen(command, env=env))
    for rank in ranks:
        assert rank.wait() == 0
"""


def asked(**told) -> Asked:
    return Asked(**{"project": "p", "run_id": "", "resume": "never", **told})


def answers(*known: str, exists=True, state="finished", attempt=1, reachable=True, last_step=None):
    """A gateway that knows some launches, as Preflight is defined: their attempt, else one more than the highest."""

    def ask(run_id: str, launch_id: str) -> Preflight:
        if not reachable:
            return Preflight()
        told = attempt if launch_id in known else attempt + 1 if exists else 1
        return Preflight(True, "p", exists, state if exists else "", told, last_step)

    return ask


def info(run_id="r", launch_id="other", attempt=1, pid=2**22 + 1, role=wire.ROLE_RANK) -> StreamInfo:
    return StreamInfo("s", "p", run_id, 0, attempt, "h", role, pid, 1.0, "", launch_id=launch_id)


def test_torchrun():
    found = place(TORCHRUN | SLURM)
    assert (found.launcher, found.rank, found.local_rank, found.world_size) == ("torchrun", 5, 1, 8)
    assert (found.one_node, found.restarts) == (False, 2)
    assert "job-17" in found.job


def test_slurm_and_what_is_no_task_of_it():
    found = place(SLURM)
    assert (found.launcher, found.rank, found.local_rank, found.world_size) == ("slurm", 3, 1, 4)
    batch_script = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}
    assert place(batch_script).launcher == "none"
    assert place(SLURM | {"SLURM_PTY_PORT": "1"}).launcher == "none"


def test_openmpi_and_pmi():
    found = place({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"})
    assert (found.launcher, found.rank, found.local_rank, found.world_size) == ("openmpi", 1, 1, 2)
    found = place({"PMI_RANK": "1", "PMI_SIZE": "2"})
    assert (found.launcher, found.rank, found.world_size) == ("pmi", 1, 2)
    assert place({}) == Place("none")
    assert place({"RANK": "x", "WORLD_SIZE": "2"}).launcher == "none"


def test_ranks_of_a_named_job_agree_and_two_jobs_do_not():
    def run_id(env):
        return identify(asked(), place(env), "", answers(exists=False), []).run_id

    ranks = [TORCHRUN | {"RANK": str(rank), "LOCAL_RANK": str(rank % 4)} for rank in range(8)]
    assert len({run_id(env) for env in ranks}) == 1
    assert run_id(TORCHRUN) != run_id(TORCHRUN | {"TORCHELASTIC_RUN_ID": "job-18"})
    assert run_id(SLURM) == run_id(SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    assert run_id(SLURM) != run_id(SLURM | {"SLURM_STEP_ID": "1"})
    assert run_id(SLURM) != run_id(SLURM | {"SLURM_CLUSTER_NAME": "small"})


def test_several_nodes_without_a_job_id_are_told_what_to_do():
    found = place(TORCHRUN | {"TORCHELASTIC_RUN_ID": "none"})
    assert nodes_unnamed(found)
    notices = identify(asked(), found, "", answers(reachable=False), []).notices
    assert "RUNTIDE_RUN_ID" in notices[0]
    assert "--rdzv-id" in notices[0]


@pytest.mark.parametrize("job_id", ["none", ""])
def test_two_torchrun_jobs_with_default_settings_at_once_are_two_runs(job, tmp_path, job_id):
    launcher = tmp_path / "launcher.py"
    launcher.write_text(textwrap.dedent(LAUNCHER).replace('"none"', repr(job_id)))
    code = f"import runpy, sys; sys.argv = ['x', '2']; runpy.run_path({str(launcher)!r})"
    jobs = [job.start(code) for _ in range(2)]
    for process in jobs:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    found: dict[str, list[tuple[int, int, int]]] = {}
    for stream in job.streams():
        opened = stream.opened.stream_opened
        kind = 0 if "a" in stream.steps()[0][1] else 1
        found.setdefault(opened.run_id, []).append((kind, opened.attempt, opened.rank))
        assert opened.launcher == "torchrun"
    # two jobs, two inits in each; in every run both attempts of both ranks
    assert len(found) == 4
    for said in found.values():
        kind = said[0][0]
        assert sorted(said) == [(kind, 1, 0), (kind, 1, 1), (kind, 2, 0), (kind, 2, 1)]


def test_lone_processes_with_rank_variables_of_one_shell_are_runs_of_their_own(job):
    env = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    for _ in range(2):
        job.run("import runtide; runtide.init('p').log({'a': 1})", env=env)
    assert len({stream.info.run_id for stream in job.streams()}) == 2


def test_an_ended_run_is_not_touched_by_another_launch_with_its_id():
    found = identify(asked(run_id="r"), Place("none"), "", answers(), [])
    assert found.run_id != "r"
    assert found.attempt == 1
    assert "has ended" in found.notices[0]
    again = identify(asked(run_id="r"), Place("none"), "", answers(), [])
    assert again.run_id == found.run_id, "all ranks of a launch come to the same new id"


def test_a_late_rank_of_a_launch_that_ended_still_belongs():
    launch = identify(asked(run_id="r"), Place("none"), "", answers(exists=False), []).launch_id
    found = identify(asked(run_id="r"), Place("none"), "", answers(launch, attempt=3), [])
    assert (found.run_id, found.attempt) == ("r", 3)
    found = identify(asked(run_id="r"), Place("none"), "", answers(reachable=False), [info(launch_id=launch)])
    assert (found.run_id, found.attempt) == ("r", 1)


def test_joining_a_living_run_is_no_new_attempt():
    found = identify(asked(run_id="r"), Place("none"), "", answers(state="running", attempt=2), [])
    assert (found.run_id, found.attempt) == ("r", 2)


def test_allow_and_must_make_attempts():
    found = identify(asked(run_id="r", resume="allow"), Place("none"), "", answers(attempt=2), [])
    assert (found.run_id, found.attempt) == ("r", 3)
    assert identify(asked(run_id="r", resume="allow"), Place("none"), "", answers(exists=False), []).attempt == 1
    assert identify(asked(run_id="r", resume="must"), Place("none"), "", answers(), []).attempt == 2
    with pytest.raises(NoSuchRun, match="no such run"):
        identify(asked(run_id="r", resume="must"), Place("none"), "", answers(exists=False), [])


def test_without_a_gateway_the_disk_is_asked():
    nobody = answers(reachable=False)
    assert identify(asked(run_id="r", resume="allow"), Place("none"), "", nobody, [info(attempt=4)]).attempt == 5
    assert identify(asked(run_id="r"), Place("none"), "", nobody, [info()]).run_id != "r"
    assert identify(asked(run_id="r"), Place("none"), "", nobody, [info(role=wire.ROLE_AGENT)]).run_id == "r"
    assert identify(asked(run_id="r", resume="must"), Place("none"), "", nobody, []).run_id == "r"


def test_restarts_are_attempts_whatever_the_gateway_has_seen():
    found = identify(asked(run_id="r"), place(TORCHRUN), "", answers(state="crashed", attempt=1), [])
    assert (found.run_id, found.attempt) == ("r", 3)


def test_everything_under_runtide_run_is_one_launch():
    one = identify(asked(run_id="r"), Place("none"), "123", answers(exists=False), [])
    two = identify(asked(run_id="r"), Place("slurm", rank=3), "123", answers(exists=False), [])
    assert one.launch_id == two.launch_id


def test_each_start_of_runtide_run_is_a_launch_but_all_nodes_of_a_named_job_are_one(job):
    script = "import runtide; runtide.init('p', resume='allow', run_id='r').finish()"
    for _ in range(2):  # as processes of one number, as in a container
        command = [sys.executable, "-c", script]
        job.run(f"import os; from runtide.agent import parent; os.getpid = lambda: 1; parent.run_job({command})")
    assert [stream.info.attempt for stream in job.streams()] == [1, 2]
    nodes = [TORCHRUN | {"RANK": str(rank), "TORCHELASTIC_RESTART_COUNT": "0"} for rank in (0, 4)]
    ids = {identify(asked(run_id="r"), place(env), str(at), answers(), []).launch_id for at, env in enumerate(nodes)}
    assert len(ids) == 1


BY_HAND = """
job() {
    for rank in 0 1; do
        RANK=$rank WORLD_SIZE=2 LOCAL_RANK=$rank LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29500 \
            TORCHELASTIC_RUN_ID=none "$PYTHON" -c "$SCRIPT" & pids="$pids $!"
    done
    wait $pids
}
job; job; job
"""


def test_jobs_that_one_shell_starts_one_after_the_other_are_runs_of_their_own(job):
    script = """
import subprocess, sys, runtide
run = runtide.init("p")
run.log({"rank": 1})
helper = "import runtide; runtide.init('p').log({'helper': 1})"
subprocess.run([sys.executable, "-c", helper], check=True)  # a rank's own helper is no other job
"""
    env = {"PYTHON": sys.executable, "SCRIPT": script, "BY_HAND": BY_HAND}
    done = job.run("import os, subprocess; subprocess.run(['sh', '-c', os.environ['BY_HAND']], check=True)", env=env)
    found: dict[str, list[tuple[int, str]]] = {}
    for stream in job.streams():
        found.setdefault(stream.info.run_id, []).extend(
            (stream.info.rank, name) for _, row in stream.steps() for name in row
        )
    expected = [(0, "helper"), (0, "rank"), (1, "helper"), (1, "rank")]
    assert [sorted(each) for each in found.values()] == [expected] * 3
    assert "this is another job" in done.stderr
    assert "set RUNTIDE_RUN_ID" in done.stderr


def test_a_rank_that_another_living_process_has_is_another_job():
    hand = place({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "none"})
    first = identify(asked(), hand, "", answers(), [])

    def again(local, ended=None):
        return identify(
            asked(), hand, "", answers(), local, ended_here=lambda name: ended if name == ended_name else None
        )

    def stream(pid, started, rank=0):
        return StreamInfo(
            "s", "p", first.run_id, rank, 1, "h", wire.ROLE_RANK, pid, started, "", launch_id=first.launch_id
        )

    ended_name = f"{first.run_id}/0"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        alive = psutil.Process(other.pid).create_time()
        found = again([stream(other.pid, alive)])
        assert found.run_id != first.run_id
        assert "RUNTIDE_RUN_ID" in found.notices[0]
        assert again([stream(other.pid, alive, rank=1)]).run_id == first.run_id
        gone = stream(2**22 + 1, 1.0)
        assert again([gone, stream(other.pid, alive, rank=1)]).run_id == first.run_id, "the job lives"
        other.communicate(b"\n")
    assert again([gone]).run_id == found.run_id
    assert again([], EndedHere(first.launch_id, time.time() - 3600, alone=False)).run_id == found.run_id
    assert again([], EndedHere(first.launch_id, time.time() + 1, alone=False)).run_id == first.run_id
    mine = stream(os.getpid(), psutil.Process().create_time())
    assert again([mine]).run_id == first.run_id


def test_resume_from_a_step():
    assert parse_resume_from("abc?step=-5") == ("abc", -5)
    assert parse_resume_from("abc") == ("abc", None)
    for bad in ("?step=1", "abc?stop=1", "abc?step=x"):
        with pytest.raises(BadInput):
            parse_resume_from(bad)
    told = settings({}, resume_from="r?step=40")
    found = identify(
        asked(resume_run=told.resume_run, resume_step=told.resume_step), Place("none"), "", answers(attempt=1), []
    )
    assert (found.run_id, found.attempt, found.resume_step, found.resumed_from) == ("r", 2, 40, "")
    assert found.next_step == 41
    other = identify(asked(run_id="new", resume_run="r", resume_step=40), Place("none"), "", answers(), [])
    assert other.run_id != "r"
    assert (other.resumed_from, other.resume_step, other.next_step) == ("r", 40, 41)


def test_what_is_not_there_is_not_resumed():
    nowhere = answers(exists=False)
    for told in (asked(resume_run="r"), asked(resume_run="r", resume_step=5), asked(run_id="new", resume_run="r")):
        with pytest.raises(NoSuchRun, match="run r is to be resumed, but project p has no such run"):
            identify(told, Place("none"), "", nowhere, [])
        assert identify(told, Place("none"), "", nowhere, [info()]).attempt, "it lies in the spool"

    def no_store(run_id: str, launch_id: str) -> Preflight:
        return Preflight(True, "p")

    assert identify(asked(run_id="r", resume="must"), Place("none"), "", no_store, []).run_id == "r"


def test_steps_go_on_after_those_of_earlier_attempts():
    def next_step(place_=Place("none"), local=(), gateway=answers(last_step=99), steps=None, **told):  # noqa: B008
        found = identify(asked(**told), place_, "", gateway, local, (steps or {}).get)
        assert not found.notices
        return found.next_step

    nobody = answers(reachable=False)
    here, there = info(attempt=1), info(attempt=2)
    for resume in ("allow", "must"):
        assert next_step(run_id="r", resume=resume) == 100
        assert next_step(run_id="r", resume=resume, gateway=answers()) == 0
    assert next_step(last="r", resume="auto") == 100
    assert next_step(resume_run="r") == 100
    assert next_step(run_id="new", resume_run="r") == 100
    assert next_step(run_id="r", gateway=answers(exists=False)) == 0
    assert next_step(run_id="r", resume="allow", local=[here], steps={here: 105}) == 106, "not stored yet"
    both = [here, there]
    for gateway in (nobody, answers(last_step=7), answers(exists=False)):
        told = {"run_id": "r", "resume": "allow", "gateway": gateway}
        assert next_step(local=both, steps={here: 7, there: 3}, **told) == 4, "it resumed at 2 and hid the rest"
        assert next_step(local=both[::-1], steps={here: 7, there: 3}, **told) == 4
    told = {"run_id": "r", "resume": "allow", "gateway": answers(attempt=2, last_step=5)}
    assert next_step(local=both, steps={here: 7, there: 3}, **told) == 6, "another host's rank has come further"
    ranks = [*both, replace(there, rank=1)]
    told = {"run_id": "r", "resume": "allow", "gateway": nobody}
    assert next_step(local=ranks, steps={here: 7, there: 3, ranks[2]: 4}, **told) == 5
    assert next_step(local=both, steps={here: 7}, **told) == 8, "the latest one logged nothing"
    assert next_step(resume_run="r", local=both, steps={here: 7, there: 3}, gateway=nobody) == 4
    assert next_step(place(TORCHRUN), run_id="r") == 100, "the launcher has started it again"
    joined = info(launch_id=identify(asked(run_id="r"), Place("none"), "", nobody, []).launch_id, attempt=2)
    assert next_step(run_id="r", resume="allow", local=[here, joined], steps={here: 7, joined: 3}, gateway=nobody) == 8


def test_a_first_step_that_cannot_be_known_is_said():
    for told in ({"run_id": "r", "resume": "must"}, {"resume_run": "r"}, {"last": "r", "resume": "auto"}):
        found = identify(asked(**told), Place("none"), "", answers(reachable=False), [])
        assert found.next_step == 0
        assert "how far run r has come cannot be asked now" in found.notices[0]
    assert identify(asked(run_id="r"), Place("none"), "", answers(reachable=False), []).notices == ()
    assert identify(asked(resume_run="r", resume_step=4), Place("none"), "", answers(reachable=False), []).notices == ()


def test_a_resumed_job_goes_on_where_its_files_end(job):
    script = """
import runtide
run = runtide.init("p", resume="allow", run_id="r", resume_from={source})
run.log({"a": 1}); run.log({"a": 2, "b": 1}); print("x" * 30000)
run.finish({code})
"""
    for source, code in (("None", 1), ("None", 1), ("'r?step=2'", 0)):
        job.run(script.replace("{source}", source).replace("{code}", str(code)))
    steps = [[step for step, _ in stream.steps()] for stream in job.streams()]
    assert steps == [[0, 1], [2, 3], [3, 4]]


def test_processes_started_together_are_one_run_and_later_ones_are_another(job):
    script = """
import sys, runtide
sys.stdin.readline()
run = runtide.init("p")
run.log({"a": 1})
run.finish()
"""
    env = {"RUNTIDE_RUN_ID": "given"}
    together = [job.start(script, env) for _ in range(3)]
    for process in together:  # each begins when the one before it has ended
        _, errors = process.communicate("go\n", timeout=60)
        assert process.returncode == 0, errors
    later = job.start(script, env)
    _, errors = later.communicate("go\n", timeout=60)
    assert "has ended" in errors
    ids = [stream.info.run_id for stream in job.streams()]
    assert ids[:3] == ["given"] * 3
    assert ids[3] != "given"


def test_auto_goes_on_with_what_was_left_unfinished(job):
    script = "import runtide; run = runtide.init('p', resume='auto'); run.log({'a': 1}); run.finish({code})"
    for code in ("1", "0", "0"):
        job.run(script.replace("{code}", code))
    streams = job.streams()
    ids = [stream.info.run_id for stream in streams]
    assert ids[0] == ids[1] != ids[2]
    assert [stream.info.attempt for stream in streams] == [1, 2, 1]


def test_arguments_win_over_variables():
    env = {
        "RUNTIDE_PROJECT": "env",
        "RUNTIDE_TAGS": "a, b,,a",
        "RUNTIDE_MODE": "offline",
        "RUNTIDE_RESUME": "allow",
        "RUNTIDE_RUN_ID": "id",
        "RUNTIDE_DIR": "/elsewhere",
        "RUNTIDE_TOKEN": "secret",
        "RUNTIDE_CONSOLE": "0",
        "RUNTIDE_SPOOL_MB": "2",
    }
    told = settings(env, project="arg", tags=["x"], dir="/here", capture_console=True)
    assert (told.project, told.tags, told.root) == ("arg", ("x",), Path("/here"))
    assert (told.mode, told.resume, told.run_id, told.token) == ("offline", "allow", "id", "secret")
    assert (told.capture_console, told.budget_bytes, told.url) == (True, 2 * 1024 * 1024, "")
    assert settings(env).tags == ("a", "b")
    assert settings({}).url == "grpc://127.0.0.1:7171"
    assert settings({}, url="host:1").url == "grpc://host:1"
    assert settings({}, url="localhost").url == "grpc://localhost:7171"
    assert settings({}, url="grpcs://[::1]/").url == "grpcs://[::1]:7171"
    assert settings({}, url="grpc://[::1").url == "grpc://[::1"


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "sometimes"},
        {"resume": "perhaps"},
        {"url": "http://x"},
        {"run_id": "a/b"},
        {"project": "x" * 300},
        {"name": "x" * 2000},
        {"run_id": " a"},
        {"run_id": "a b"},
        {"run_id": "@kpis"},
        {"tags": 5},
        {"dir": 5},
        {"resume_from": 5.5, "resume": "x"},
    ],
)
def test_what_cannot_be_is_refused_by_name(bad):
    field = list(bad)[-1]
    with pytest.raises(BadInput, match=f"^{field} is"):
        settings({}, **bad)


def test_the_first_record_says_who_and_where(job, tmp_path):
    repository = tmp_path / "repo"
    (repository / ".git" / "refs" / "heads").mkdir(parents=True)
    (repository / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (repository / ".git" / "packed-refs").write_text("# pack-refs\n" + "ab" * 20 + " refs/heads/main\n")
    (repository / ".git" / "config").write_text('[remote "origin"]\n\turl = https://me:pw@host.org/x.git\n')
    script = repository / "train.py"
    script.write_text("import runtide; runtide.init('p', name='n', tags=['t'], experiment='e', notes='o', group='g')")
    job.run(f"import runpy, sys; sys.argv = [{str(script)!r}]; runpy.run_path(sys.argv[0])")
    opened = job.stream().opened.stream_opened
    assert (opened.git_commit, opened.git_branch) == ("ab" * 20, "main")
    assert opened.git_remote == "https://host.org/x.git"
    assert (opened.name, list(opened.tags), opened.experiment, opened.notes) == ("n", ["t"], "e", "o")
    assert opened.python_version.endswith(".".join(map(str, sys.version_info[:3])))
    assert (opened.role, opened.rank, opened.attempt, opened.world_size) == (wire.ROLE_RANK, 0, 1, 1)
    assert opened.launch_id
    assert opened.sdk_version
