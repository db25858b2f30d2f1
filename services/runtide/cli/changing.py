"""What the commands that change things do: find the run, say the change through the gateway, show what is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtide.cli.pushing import gateway_url, pushing
from runtide.cli.store import RunKey, find_run, open_store, rows
from runtide.warehouse import audit
from runtide.warehouse.audit import Entry, Verified
from runtide.warehouse.changes import make_change, wait
from runtide.warehouse.client import Client
from runtide.warehouse.rulings import account
from runtide.wire.errors import BadInput, Unavailable

Row = dict[str, Any]

_NOW = """
SELECT name, notes, tags FROM runtide.runs WHERE project = {project:String} AND run_id = {run:String}
"""
_SEEN = {"rename": "name", "notes": "notes", "tag_add": "tags", "tag_remove": "tags"}
"""Which column of a run the first change of a kind replaces."""
_LIST = """
SELECT project, seq, time, actor, subject, kind, reason, before, after, hash FROM runtide.audit
WHERE ({project:String} = '' OR project = {project:String}) AND ({subject:String} = '' OR subject = {subject:String})
ORDER BY time DESC, project, seq DESC LIMIT {limit:UInt64}
"""


def change_run(
    run: str,
    kind: str,
    after: Any,
    reason: str,
    project: str | None,
    url: str | None,
    home: Path | None,
    clickhouse: str | None,
) -> Row:
    """Change one run, and say what is in the audit trail of it. Raises UnknownRun, and what a gateway says."""
    with open_store(home, clickhouse) as client:
        key = find_run(client, run, project)
        before = _seen(client, key, kind)
        told = after, reason, account(), key.project
        with pushing(url or gateway_url(home)) as push:
            outcome = make_change(push, f"run:{key.run_id}", kind, *told, before=before)
        found = wait(client, outcome)
    if not found:
        raise Unavailable("the gateway has taken it, but the sink has not got to it yet: see `runtide audit list`")
    return brief(found[0])


def _seen(client: Client, key: RunKey, kind: str) -> Any:
    """What a change is about to replace, for the trail; nothing where the run shows nothing yet."""
    column = _SEEN.get(kind)
    found = rows(client, _NOW, project=key.project, run=key.run_id) if column else []
    return found[0][column] if found and column else None


def brief(entry: Entry) -> Row:
    """One row of the trail, for people and programs."""
    row = asdict(entry)
    return {
        "project": row["project"],
        "seq": row["seq"],
        "time": datetime.fromtimestamp(entry.time_us / 1_000_000, UTC),
        **{name: row[name] for name in ("actor", "subject", "kind", "reason", "before", "after", "hash")},
    }


def listed(client: Client, project: str | None, subject: str | None, limit: int) -> list[Row]:
    """The newest rows first."""
    return rows(client, _LIST, project=project or "", subject=subject or "", limit=limit)


def verified(client: Client, project: str | None, head: str | None) -> list[Verified]:
    """Each chain, verified. A head is looked for in all of them, and must be in one. Raises BadInput."""
    if head is not None and (len(head) != len(audit.FIRST) or set(head.lower()) - set("0123456789abcdef")):
        raise BadInput("--head", repr(head), "it must be a whole hash, 64 hexadecimal digits")
    found = [audit.verify(client, name, head or "") for name in ([project] if project else audit.projects(client))]
    if head is not None and all(each.asked_seq is None for each in found):
        of = f"the chain of project {project}" if project else "any chain"
        found.append(Verified("", asked=head, problems=[f"head {head} is not in {of}"]))
    return found


def of_verified(found: Verified) -> Row:
    """For programs."""
    return asdict(found) | {"clean": not found.problems}


def show_verified(found: Iterable[Verified]) -> None:
    """For people: each head, to be kept elsewhere, and what is wrong."""
    each = list(found)
    for one in each:
        if one.project:
            print(f"project {one.project}: {one.rows} changes, head {one.head} at seq {one.seq}")
        if one.asked_seq is not None:
            print(f"project {one.project}: head {one.asked} is in the chain, at seq {one.asked_seq}")
        for problem in one.problems:
            print(problem)
    wrong = sum(bool(one.problems) for one in each)
    print(f"{wrong} of {len(each)} chains do not fit" if wrong else f"all fits: {len(each)} chains")


def lines(client: Client, project: str | None) -> Iterator[str]:
    """The whole trail as JSON lines, with all that a hash is made of."""
    for name in [project] if project else audit.projects(client):
        for entry in audit.entries(client, name):
            yield json.dumps(asdict(entry), ensure_ascii=False, sort_keys=True)
