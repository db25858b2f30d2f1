"""What is written for people is true: help, README, settings."""

import dataclasses
import re
from pathlib import Path

import pytest
import runtide
from runtide.cli import BASE_COMMANDS, commands_read, main
from runtide.cli.app import app
from runtide.cli.settings import Settings
from runtide.embedded.limits import QueryLimits
from runtide.gateway import Limits, metrics
from runtide.wire import limits as wire_limits
from typer.testing import CliRunner

from tests.surface import limits_table
from tests.surface.settings_table import table

ROOT = Path(__file__).parents[2]
PROMISED = [
    "up",
    "down",
    "status",
    "demo",
    "run",
    "gateway",
    "sink",
    "processor",
    "dashboard",
    "clickhouse",
    "canary",
    "migrate",
    "token",
    "agent",
    "sync",
    "runs",
    "show",
    "compare",
    "leaderboard",
    "export",
    "tail",
    "sql",
    "verify",
    "rebuild",
    "tag",
    "note",
    "comment",
    "rename",
    "delete",
    "restore",
    "audit",
    "experiment",
    "costs",
    "prices",
    "dead-letters",
    "kpi",
    "artifact",
    "chaos",
    "duplicates",
    "explored",
    "reproduce",
]


def commands() -> set[str]:
    groups = {group.name or group.typer_instance.info.name for group in app.registered_groups if group.typer_instance}
    plain = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    return plain | {str(name) for name in groups}


GROUPS = {
    "audit": ["list", "verify", "export"],
    "prices": ["apply", "show"],
    "artifact": ["list", "get", "verify"],
    "dead-letters": ["list", "show", "replay", "discard"],
    "kpi": ["log", "import", "list"],
    "token": ["create", "list", "revoke"],
    "experiment": ["create", "list", "show", "plan", "depend", "decide", "budget", "report"],
}
"""Commands that have commands of their own."""


def test_every_promised_command_is_there() -> None:
    assert commands() == set(PROMISED)


@pytest.mark.parametrize(
    "name",
    [
        *sorted(set(PROMISED) - set(BASE_COMMANDS) - set(GROUPS)),
        *(f"{group} {name}" for group, names in GROUPS.items() for name in names),
    ],
)
def test_help_has_an_example_that_names_the_command(name: str) -> None:
    found = CliRunner().invoke(app, [*name.split(), "--help"])
    assert found.exit_code == 0
    example = re.search(r"Example:\s*(.*?)\n\n", found.output, re.DOTALL)
    assert example is not None
    assert f"runtide {name}" in " ".join(example[1].split())


@pytest.mark.parametrize("name", sorted(BASE_COMMANDS))
def test_help_of_base_commands_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert f"Example: runtide {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [
        "runs",
        "show",
        "compare",
        "leaderboard",
        "export",
        "duplicates",
        "explored",
        "reproduce",
        "kpi list",
        "audit list",
        "artifact list",
        "costs",
        "experiment list",
        "experiment show",
        "dead-letters list",
        "dead-letters show",
        "verify",
        "status",
        "sql",
        "token list",
    ],
)
def test_lists_take_json(name: str) -> None:
    assert "--json" in CliRunner().invoke(app, [*name.split(), "--help"]).output


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/security.md", "docs/kpis.md", "docs/experiments.md"]
)
def test_commands_in_the_pages_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    blocks = "\n".join(re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL)) + "\n".join(
        re.findall(r"`((?:runtide|make) [^`]*)`", text)
    )
    named = set(re.findall(r"^(?:\$ )?runtide ([a-z-]+)", blocks, re.MULTILINE))
    assert named <= set(PROMISED)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^(?:\$ )?make ([a-z-]+)", blocks, re.MULTILINE)) <= targets


def test_files_that_the_pages_link_exist() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_views_in_the_readme_exist() -> None:
    migrations = (ROOT / "services/runtide/warehouse/migrations").glob("*.sql")
    views = {view for path in migrations for view in re.findall(r"VIEW runtide\.(\w+)", path.read_text())}
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    named = set(re.findall(r"(?:FROM|JOIN)\s+(?:runtide\.)?(\w+)", "\n".join(blocks)))
    assert named <= views
    told = re.sub(r"\s+", " ", str(commands_read.sql.__doc__)).partition("The views are ")[2].partition(".")[0]
    listed = (ROOT / "README.md").read_text().partition("The views are the public interface: ")[2].partition(";")[0]
    assert set(told.split(", ")) == set(re.findall(r"`(\w+)`", listed)) <= views, "the help names the same ones"


def test_python_in_the_readme_is_the_example() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = (ROOT / "examples/quickstart.py").read_text()
    blocks = [block for block in blocks if "runtide.init(" in block]  # how to read is run from docs/sql.md
    assert blocks
    for block in blocks:
        for line in block.splitlines():
            assert line in example.splitlines(), line


def test_what_runtide_exports_is_there_and_written() -> None:
    assert sorted(set(runtide.__all__)) == sorted(runtide.__all__)
    for name in ("init", "log", "finish", "Run"):
        assert name in runtide.__all__
    for name in runtide.__all__:
        if callable(found := getattr(runtide, name)):
            assert found.__doc__, name


def test_every_setting_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        for inner, nested in getattr(field.annotation, "model_fields", {}).items():
            assert nested.description, f"{name}.{inner}"


def test_the_page_of_settings_is_the_settings() -> None:
    lines = (ROOT / "docs/settings.md").read_text().partition("## Of the services")[2].splitlines()
    assert [line for line in lines if line.startswith("|")] == table()


def test_the_page_of_limits_is_the_code() -> None:
    lines = (ROOT / "docs/limits.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("|")] == limits_table.table()


def test_every_limit_has_its_row() -> None:
    of_gateway = {field.name for field in dataclasses.fields(Limits)}
    assert set(limits_table.GATEWAY) == of_gateway
    assert set(limits_table.EMBEDDED) == {field.name for field in dataclasses.fields(QueryLimits)}
    of_wire = {name for name in vars(wire_limits) if name.isupper()}
    assert of_wire == set(limits_table.WIRE) | limits_table.NO_LIMITS | {name.upper() for name in of_gateway} & of_wire
    for name in ("record_bytes", "batch_bytes", "push_ranges", "identity_bytes", "key_set_names", "run_metric_names"):
        assert getattr(Limits(), name) == getattr(wire_limits, name.upper()), "what an sdk keeps to is what is taken"


def test_every_limit_that_a_gateway_counts_is_one() -> None:
    assert set(metrics.LIMITS) - {"bus"} <= {field.name for field in dataclasses.fields(Limits)}
    rated = {name for name, words in limits_table.GATEWAY.items() if f"{name}:" in words.sees}
    assert rated | {"run_metric_names", "bus"} == set(metrics.LIMITS)


def test_every_variable_of_jobs_is_in_the_page_of_settings() -> None:
    page = (ROOT / "docs/settings.md").read_text()
    inner = {"RUNTIDE_LAUNCH_ID", "RUNTIDE_PARENT_PID", "RUNTIDE_PUBLIC_URL"}  # set by runtide for its own processes
    used = {
        name
        for room in ("sdk", "agent", "spool")
        for path in (ROOT / "services/runtide" / room).glob("*.py")
        for name in re.findall(r'"(RUNTIDE_[A-Z_]+)"', path.read_text())
    }
    assert {name for name in used - inner if f"`{name}`" not in page} == set()


def test_the_page_of_reliability_names_tests_that_are_there() -> None:
    page = (ROOT / "docs/reliability.md").read_text()
    rows = [int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)]
    assert rows == list(range(1, 31))


def test_each_of_the_promises_of_tracking_has_its_test() -> None:
    page = (ROOT / "docs/features.md").read_text()
    lines = [[cell.strip() for cell in line.split(" | ")] for line in re.findall(r"^\| (\d.*) \|$", page, re.MULTILINE)]
    assert [line[0] for line in lines] == [str(number) for number in range(1, 25)]
    for _, promise, *_, test in lines:
        found = re.fullmatch(r"\[.*\]\(\.\./(tests/.*\.py)\)", test)
        assert found, promise
        assert (ROOT / found[1]).exists(), promise
    for method in re.findall(r"`(?:with )?run\.(\w+)", page):
        assert method == "config" or callable(getattr(runtide.Run, method)), method
    for view in re.findall(r"FROM (\w+)", page):
        assert f"`{view}`" in (ROOT / "docs/sql.md").read_text(), view
    assert set(re.findall(r"`runtide ([a-z-]+)", page)) <= set(PROMISED)
