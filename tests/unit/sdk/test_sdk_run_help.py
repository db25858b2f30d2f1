"""What help(runtide.Run) shows."""

from __future__ import annotations

import inspect

import runtide

ATTRIBUTES = ["attempt", "experiment", "id", "mode", "name", "project", "rank", "run_id", "url"]


def test_everything_that_help_shows_is_for_users_and_explained():
    public = {name: member for name, member in vars(runtide.Run).items() if not name.startswith("_")}
    assert all(inspect.getdoc(member) for member in public.values())
    assert not {"keep", "leave", "after_fork"} & set(public)
    for name in ATTRIBUTES:
        assert isinstance(public[name], property), name


def test_what_a_run_is_cannot_be_set():
    run = runtide.init("p", mode="disabled", name="n", url="grpc://somewhere:1")
    assert (run.project, run.name, run.mode, run.rank, run.attempt) == ("p", "n", "disabled", 0, 1)
    assert run.id == run.run_id
    run.finish()
