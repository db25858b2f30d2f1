"""Runs that are the same as one that is about to start, or nearly so: asked before it costs anything.

The same: equal code (commit, uncommitted changes, entry script, untracked modules) and equal configuration. Nearly so:
the same code with at most NEAR_KEYS keys of the configuration different, or the same configuration with other code.
An environment that differs is a difference, but keeps nobody from being near. Data sets are said while a run goes on,
so they cannot be compared before it has begun; the view `duplicates` does it afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.v1.ingest_pb2 import Difference, Duplicate, PreflightRequest
from runtide.v1.records_pb2 import Fingerprint
from runtide.warehouse.errors import classified
from runtide.wire.errors import BadInput

NEAR_KEYS = 2
"""A run with more keys of its configuration different is another experiment."""
LOOKED_THROUGH = 2000
"""Runs of the same code or configuration that are compared key by key, the newest."""
SHOWN = 5
RESULTS = 5
"""Metrics of a run that are told, those with a goal first."""
VALUE_CHARS = 200

_CANDIDATES = """
SELECT run_id, argMax(code, attempt) AS code, argMax(config, attempt) AS config_digest,
    argMax(environment, attempt) AS environment
FROM runtide.fingerprints WHERE project = {project:String} AND run_id != {run:String}
GROUP BY run_id
HAVING (code = {code:String} AND code != '') OR (config_digest = {config:String} AND config_digest != '')
"""
_RUNS = """
SELECT run_id, name, user, state, toUnixTimestamp64Micro(started_at), duration_s, world_size, config
FROM runtide.runs WHERE project = {project:String} AND run_id IN {runs:Array(String)}
ORDER BY started_at DESC LIMIT {limit:UInt32}
"""
_RESULTS = """
SELECT run_id, metric, coalesce(best, last) FROM runtide.run_metrics
WHERE project = {project:String} AND run_id IN {runs:Array(String)} ORDER BY goal = '', metric
LIMIT {limit:UInt8} BY run_id
"""


def find_duplicates(client: Client, project: str, asked: PreflightRequest) -> list[Duplicate]:
    """The runs of a project that are the same or near, at most SHOWN, the nearest and newest first.

    Raises BadInput for a configuration that is no JSON object, and StoreError.
    """
    config, about = _config(asked.config), asked.fingerprint
    told = {"project": project, "run": asked.run_id, "code": about.code, "config": about.config}
    known = {str(run): (str(code), str(env)) for run, code, _, env in _query(client, _CANDIDATES, told)}
    if not known:
        return []
    found = []
    for run, name, user, state, started_us, seconds, ranks, said in _query(
        client, _RUNS, {"project": project, "runs": list(known), "limit": LOOKED_THROUGH}
    ):
        code, environment = known[run]
        differences = list(_differences(about, code, environment, config, json.loads(said or "{}")))
        if _near(differences):
            found.append(
                Duplicate(
                    run_id=run,
                    name=name,
                    user=user,
                    state=state,
                    started_us=started_us,
                    duration_s=seconds,
                    world_size=ranks,
                    differences=differences,
                )
            )
    found.sort(key=lambda each: (len(each.differences), -each.started_us))
    return _with_results(client, project, found[:SHOWN])


def _config(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadInput("config", text[:80], "it is a JSON object")
    return found


def _differences(
    about: Fingerprint, code: str, environment: str, here: Mapping[str, Any], there: Mapping[str, Any]
) -> Iterator[Difference]:
    if code != about.code:
        yield Difference(what="code")
    for key in sorted(here.keys() | there.keys()):
        said, meant = (json.dumps(each[key]) if key in each else "" for each in (there, here))
        if said != meant:
            yield Difference(what=f"config.{key}", there=said[:VALUE_CHARS], here=meant[:VALUE_CHARS])
    if environment != about.environment and environment and about.environment:
        yield Difference(what="environment")


def _near(differences: Sequence[Difference]) -> bool:
    keys = sum(each.what.startswith("config.") for each in differences)
    return keys == 0 if any(each.what == "code" for each in differences) else keys <= NEAR_KEYS


def _with_results(client: Client, project: str, found: list[Duplicate]) -> list[Duplicate]:
    if not found:
        return []
    results: dict[str, dict[str, float]] = {}
    told = {"project": project, "runs": [each.run_id for each in found], "limit": RESULTS}
    for run, metric, value in _query(client, _RESULTS, told):
        results.setdefault(run, {})[metric] = float(value)
    for each in found:
        each.result = json.dumps(results.get(each.run_id, {}))
    return found


def _query(client: Client, sql: str, parameters: Mapping[str, object]) -> Sequence[Sequence[Any]]:
    try:
        return client.query(sql, parameters=dict(parameters)).result_rows
    except (ClickHouseError, OSError) as error:
        raise classified(error) from error
