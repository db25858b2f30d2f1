"""Statistics agree with those of scipy; leaderboards and comparisons with what is counted by hand."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtide.api import board
from runtide.api.compare import compare, differences, same
from runtide.api.facts import Facts, MetricFacts
from runtide.api.run import nested
from runtide.api.statistics import eta_squared, pareto, ranks, spearman, spread, student_quantile
from runtide.wire.errors import BadInput
from scipy import stats

numbers = st.lists(st.integers(0, 5), min_size=3, max_size=30)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 29, 30, 99, 1000])
def test_students_quantiles(freedom: int) -> None:
    for probability in (0.9, 0.975, 0.999):
        assert math.isclose(student_quantile(probability, freedom), stats.t.ppf(probability, freedom), rel_tol=1e-9)


def test_confidence_interval() -> None:
    values = [0.91, 0.93, 0.88, 0.9]
    found = spread(values)
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert (found.ci_low, found.ci_high) == (pytest.approx(low), pytest.approx(high))
    assert spread([1.0]) == type(found)(1, 1.0, None, None, None)


@given(numbers, st.randoms())
def test_rank_correlation(first: list[int], order: random.Random) -> None:
    second = [value + order.randint(0, 3) for value in first]
    assert ranks(first) == stats.rankdata(first).tolist()
    found = spearman(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(first, second).statistic)


def test_what_groups_explain() -> None:
    groups = ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    values = [1.0, 2, 3, 3, 5, 6, 7, 8, 4, 5, 2, 9]
    h = stats.kruskal(values[:4], values[4:8], values[8:]).statistic
    assert eta_squared(groups, values) == pytest.approx((h - 2) / 9)
    assert eta_squared(list(range(12)), values) is None  # a group for each run explains everything and nothing
    assert eta_squared(groups, [1.0] * 12) is None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=20))
def test_the_pareto_set_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return a != b and a[0] <= b[0] and a[1] <= b[1]

    wanted = [place for place, point in enumerate(points) if not any(beats(other, point) for other in points)]
    assert pareto(points) == wanted


def run(run_id: str, value: float, **config: object) -> board.Row:
    return {"run_id": run_id, "value": value, "config": config, "duration_s": 10.0, "process_hours": 0.5}


def test_places_are_shared_and_values_that_are_none_are_left_out() -> None:
    runs = [run("a", 0.5), run("b", 0.9), run("c", 0.5), run("d", math.nan), run("e", 0.1)]
    assert [(row["place"], row["run_id"]) for row in board.board(runs, "max")] == [
        (1, "b"), (2, "a"), (2, "c"), (4, "e"),
    ]  # fmt: skip
    assert [row["run_id"] for row in board.board(runs, "min")] == ["e", "a", "c", "b"]
    with pytest.raises(BadInput):
        board.board(runs, "most")


def test_groups_over_seeds() -> None:
    runs = [run(f"r{seed}", 0.9 + seed / 100, lr=0.1, seed=seed) for seed in range(3)]
    runs += [run("o1", 0.5, lr=0.2, seed=1), run("o2", 0.7, lr=0.2, seed=1)]
    first, second = board.grouped(runs, ["*"], "max")
    assert (first["group"], first["n"], first["seeds"], first["best_run"]) == ({"lr": 0.1}, 3, 3, "r2")
    assert (first["mean"], first["std"]) == (pytest.approx(0.91), pytest.approx(0.01))
    assert first["ci_low"] < first["mean"] < first["ci_high"]
    assert (second["n"], second["seeds"], second["process_hours"]) == (2, 1, 1.0)
    assert [row["group"] for row in board.grouped(runs, ["lr"], "min")] == [{"lr": 0.2}, {"lr": 0.1}]


def test_importance_finds_what_mattered() -> None:
    order = random.Random(1)
    runs = []
    for place in range(60):
        lr, kind = order.choice([0.001, 0.01, 0.1]), order.choice("ab")
        value = -abs(math.log10(lr)) + (5 if kind == "a" else 0) + order.random() / 10
        runs.append(run(str(place), value, lr=lr, kind=kind, seed=place, noise=order.random(), same=1, name=str(place)))
    found = {row["key"]: row for row in board.importance(runs)}
    assert list(found)[:2] == ["kind", "lr"]
    assert found["kind"]["kind"] == "category"
    assert found["lr"]["correlation"] > 0
    assert found["noise"]["importance"] < 0.2
    assert not {"same", "name"} & set(found)


@pytest.mark.parametrize("by", ["mean", "mean:0", "mean:x", "first"])
def test_how_a_run_is_judged_is_checked(by: str) -> None:
    with pytest.raises(BadInput):
        board.last_steps(by)
    assert board.last_steps("mean:5") == 5


@pytest.mark.parametrize(
    ("first", "second", "tolerance", "wanted"),
    [
        (1.0, 1.0, 0, True),
        (1.0, 1.0 + 1e-12, 0, False),
        (1.0, 1.0 + 1e-12, 1e-9, True),
        (1e9, 1e9 + 1, 1e-6, True),
        (0.0, 1e-7, 1e-6, True),
        (math.nan, math.nan, 0, True),
        (math.nan, 1.0, 10, False),
        (math.inf, math.inf, 0, True),
        (math.inf, -math.inf, 1e9, False),
        (None, 1.0, 10, False),
        (None, None, 10, False),
    ],
)
def test_the_same_within_a_tolerance(first: float | None, second: float | None, tolerance: float, wanted: bool) -> None:
    assert same(first, second, tolerance) is wanted


def test_differences_are_those_of_any_run() -> None:
    assert differences([{"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3}, {"a": True, "b": 2}]) == {
        "a": [1, 1, True],
        "b": [2, 3, 2],
        "c": [None, None, None],
    }


def facts(key: str, code: str, final: float) -> Facts:
    return Facts(
        key,
        {"state": "finished"},
        {"lr": final},
        packages={"torch": "2.1" if key == "p/a" else "2.2", "numpy": "1"},
        commit="abc",
        files={"train.py": code, "same.py": "x\n"} | ({"new.py": "y"} if key == "p/b" else {}),
        metrics={"loss": MetricFacts(final, 9, None)},
    )


def test_a_comparison_names_what_differs() -> None:
    found = compare([facts("p/a", "a = 1\nb = 2\n", 0.1), facts("p/b", "a = 1\nb = 3\n", 0.2)])
    assert found.config == {"lr": [0.1, 0.2]}
    assert found.packages == {"torch": ["2.1", "2.2"]}
    assert found.info == found.commits == found.datasets == found.figures == {}
    diff = found.code["p/b"]
    assert set(diff) == {"train.py", "new.py"}
    assert "-b = 2\n+b = 3\n" in diff["train.py"]
    assert diff["new.py"].startswith("--- /dev/null\n")
    assert diff["new.py"].endswith("+y\n\\ No newline at end of file\n")
    assert [str(one) for one in found.outcomes()] == ["loss: 0.1 in the first, 0.2 in p/b"]
    assert found.outcomes(0.1) == []
    assert [one.metric for one in found.outcomes(9, ["nothing"])] == ["nothing"]
    assert found.to_dict()["runs"] == ["p/a", "p/b"]


def test_dots_are_taken_apart() -> None:
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert nested({"a": 1, "a.b": 2}) == {"a": 1, "a.b": 2}
