"""The files of deploy/ say what they should: no daemon is needed to find a wrong port or command in them."""

import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from runtide.cli import BASE_COMMANDS
from runtide.cli.app import app
from runtide.cli.settings import Settings

DEPLOY = Path(__file__).parents[2] / "deploy"

STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
SERVICE = {
    "type": "object",
    "required": ["image"],
    "additionalProperties": False,
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z0-9./-]+:[A-Za-z0-9._-]+$"},
        "build": {
            "type": "object",
            "required": ["context", "dockerfile"],
            "additionalProperties": False,
            "properties": {"context": {"type": "string"}, "dockerfile": {"type": "string"}},
        },
        "command": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "environment": STRINGS,
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[a-z]+:/[a-z/]+$"}},
        "ulimits": {"type": "object", "additionalProperties": {"type": "integer"}},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["condition"],
                "properties": {
                    "condition": {"enum": ["service_started", "service_healthy", "service_completed_successfully"]}
                },
            },
        },
        "healthcheck": {
            "type": "object",
            "required": ["test", "interval", "timeout", "retries"],
            "additionalProperties": False,
            "properties": {
                "test": {"type": "array", "items": {"type": "string"}, "minItems": 2},
                "interval": {"type": "string", "pattern": r"^\d+s$"},
                "timeout": {"type": "string", "pattern": r"^\d+s$"},
                "retries": {"type": "integer", "minimum": 1},
            },
        },
    },
}
COMPOSE = {
    "type": "object",
    "required": ["name", "services", "volumes"],
    "properties": {
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object"},
    },
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_compose_has_the_shape_of_a_compose_file(compose: dict[str, Any]) -> None:
    jsonschema.validate(compose, COMPOSE)


def test_compose_runs_two_of_each_part(compose: dict[str, Any]) -> None:
    counts: dict[str, int] = {}
    for service in compose["services"].values():
        if service["image"].startswith("runtide:"):
            counts[service["command"][0]] = counts.get(service["command"][0], 0) + 1
    assert counts == {"migrate": 1, "gateway": 2, "sink": 2, "processor": 2, "dashboard": 1}


def test_compose_commands_exist(compose: dict[str, Any]) -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    for service in compose["services"].values():
        if service["image"].startswith("runtide:"):
            assert service["command"][0] in names | set(BASE_COMMANDS)


def test_compose_variables_are_settings(compose: dict[str, Any]) -> None:
    known = set()
    for name, field in Settings.model_fields.items():
        known.add(f"RUNTIDE_{name.upper()}")
        nested = getattr(field.annotation, "model_fields", {})
        known |= {f"RUNTIDE_{name}_{inner}".upper() for inner in nested}
    for name, service in compose["services"].items():
        told = {key for key in service.get("environment", {}) if key.startswith("RUNTIDE_")}
        assert told <= known, name


def test_compose_references_exist_and_ports_are_not_given_twice(compose: dict[str, Any]) -> None:
    services = compose["services"]
    published: list[str] = []
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(compose["volumes"])
        published += [port.rsplit(":", 1)[0] for port in service.get("ports", [])]
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other]
    assert len(published) == len(set(published))


def test_kafka_is_the_version_that_is_tested(compose: dict[str, Any]) -> None:
    told = re.search(r"<kafka.version>(.+?)</kafka.version>", (DEPLOY / "kafka" / "pom.xml").read_text())
    assert told is not None
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{told[1]}"


def test_dockerfile_is_sound() -> None:
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert {line[0] for line in lines} <= known
    assert lines[0][0] == "FROM"
    assert ["USER", "runtide"] in lines, "nothing in the image runs as root"
    root = DEPLOY.parent
    for line in lines:
        if line[0] == "COPY" and not line[1].startswith("--from"):
            assert all((root / source).exists() for source in line[1].split()[:-1]), line[1]
