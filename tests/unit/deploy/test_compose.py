"""The compose file and the image, as far as they can be checked without an engine."""

from __future__ import annotations

import copy
import functools
import importlib.resources
import json
import pathlib
import re
from typing import Any

import jsonschema
import pytest
import yaml

from headwater.errors import SettingsError
from headwater.settings import Settings
from headwater.tracing import spans

_ROOT = pathlib.Path(__file__).parents[3]
_ROLES = {"coordinator", "agents", "models", "tools", "gateway"}


@functools.cache
def schema() -> dict[str, Any]:
    """The compose specification's own schema, as check-jsonschema ships it."""
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    return json.loads((vendored / "compose-spec.json").read_text(encoding="utf-8"))


@functools.cache
def _read() -> dict[str, Any]:
    return yaml.safe_load((_ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


@pytest.fixture
def compose() -> dict[str, Any]:
    return copy.deepcopy(_read())


def validate(document: dict[str, Any]) -> None:
    """Validate as the engine would, formats aside."""
    validator = jsonschema.validators.validator_for(schema())
    validator(schema()).validate(document)


def broken_references(document: dict[str, Any]) -> list[str]:
    """Return what the schema cannot see: names that lead nowhere."""
    found = []
    services = document["services"]
    for name, service in services.items():
        found += [
            f"{name} needs {other}"
            for other in service.get("depends_on", {})
            if other not in services
        ]
        found += [
            f"{name} has no secret {secret}"
            for secret in service.get("secrets", [])
            if secret not in document.get("secrets", {})
        ]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and not (_ROOT / source).exists():
                found.append(f"{name} mounts {source}, which is not there")
            if not source.startswith((".", "/")) and source not in document.get("volumes", {}):
                found.append(f"{name} mounts unknown volume {source}")
        build = service.get("build")
        if build and not (_ROOT / build["dockerfile"]).is_file():
            found.append(f"{name} builds from {build['dockerfile']}, which is not there")
    return found


def test_the_compose_file_keeps_to_the_compose_specification(compose: dict[str, Any]) -> None:
    """There may be no engine here, so the specification's schema stands in for it."""
    validate(compose)
    assert broken_references(compose) == []


@pytest.mark.parametrize(
    "change",
    [
        {"imagee": "x"},
        {"ports": "8080"},
        {"depends_on": {"kafka": {"condition": "service_wishes"}}},
        {"healthcheck": {"test": 3}},
    ],
)
def test_a_compose_file_that_breaks_the_specification_is_refused(
    compose: dict[str, Any], change: dict[str, Any]
) -> None:
    """The control: the same check on a broken file fails."""
    compose["services"]["gateway"].update(change)
    with pytest.raises(jsonschema.ValidationError):
        validate(compose)


def test_references_that_lead_nowhere_are_found(compose: dict[str, Any]) -> None:
    """The control of what the schema cannot see."""
    gateway = compose["services"]["gateway"]
    gateway["depends_on"] = {"kafak": {"condition": "service_healthy"}}
    gateway["secrets"] = ["token"]
    gateway["volumes"] = ["./deploy/none.yaml:/x", "nothing:/y"]
    gateway["build"] = {"context": ".", "dockerfile": "Dockerfile"}
    assert len(broken_references(compose)) == 5


def test_every_role_is_one_service_with_a_stable_name_of_its_own(compose: dict[str, Any]) -> None:
    """Five roles; two processes of one instance name would fence each other."""
    services = compose["services"]
    roles = {
        name: service["command"][2]
        for name, service in services.items()
        if service.get("command", [""])[0] == "run"
    }
    assert set(roles.values()) == _ROLES
    instances = [services[name]["environment"]["HEADWATER_INSTANCE"] for name in roles]
    assert len(set(instances)) == len(_ROLES)


def test_foreign_images_are_pinned_and_ports_stay_on_loopback(compose: dict[str, Any]) -> None:
    """A tag that moves is another system tomorrow, and a laptop's broker is nobody else's."""
    for name, service in compose["services"].items():
        if "build" not in service:
            assert re.search(r":\d+\.\d+\.\d+$", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_no_secret_stands_in_the_compose_file() -> None:
    """Tokens and keys come from the environment of whoever starts it."""
    text = (_ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for line in text.splitlines():
        if re.match(r"\s+\w*(KEY|TOKEN|PASSWORD|SECRET)\w*:", line):
            assert re.search(r": \$\{\w+:-\}$", line) or "/run/secrets/" in line, line


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    """A COPY of something that .dockerignore hides fails only where there is an engine."""
    lines = (_ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").splitlines()
    ignore = (_ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = [
        source
        for line in lines
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    for source in copied:
        assert (_ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, source


def test_pinned_requirements_have_hashes_and_no_addresses() -> None:
    """What is installed is what was pinned, from whatever index the machine uses."""
    for path in sorted((_ROOT / "requirements").glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text, path.name
        pins = [line for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
        assert pins, path.name
        assert all("==" in line and line.endswith("\\") for line in pins), path.name


@pytest.mark.parametrize("role", sorted(_ROLES))
def test_a_roles_environment_is_settings_that_can_work(compose: dict[str, Any], role: str) -> None:
    """A variable that is misspelt, or a value that cannot work, would stop the container at its start."""
    given = compose["services"][role]["environment"]
    environment = {name: value for name, value in given.items() if name.startswith("HEADWATER_")}
    settings = Settings.of(environment)
    assert settings.instance == f"{role}-0"
    assert settings.kafka.bootstrap == "kafka:9092"
    assert settings.http.port == 8080
    assert spans.wanted(given)


def test_a_misspelt_setting_is_found(compose: dict[str, Any]) -> None:
    """The control."""
    with pytest.raises(SettingsError, match="HEADWATER_KAFKA__BOOTSTRAPS"):
        Settings.of({"HEADWATER_KAFKA__BOOTSTRAPS": "kafka:9092"})
