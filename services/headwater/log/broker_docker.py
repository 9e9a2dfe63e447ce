"""The local Kafka as a container, through testcontainers where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from headwater.log.broker_java import KAFKA, SETTINGS

IMAGE = f"apache/kafka:{KAFKA}"
_INSIDE = 9092


def engine_answers() -> bool:
    """Return whether testcontainers is installed and a Docker engine answers it."""
    if importlib.util.find_spec("testcontainers") is None:
        return False
    docker = importlib.import_module("docker")
    try:
        return bool(docker.from_env(timeout=5).ping())
    except docker.errors.DockerException:
        return False


def start(port: int) -> str:
    """Start a container that serves on a port of this machine; return its id."""
    config = importlib.import_module("testcontainers.core.config").testcontainers_config
    config.ryuk_disabled = True  # the broker outlives the command that starts it
    container = importlib.import_module("testcontainers.core.container").DockerContainer(IMAGE)
    settings = {
        **SETTINGS,
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": f"PLAINTEXT://:{_INSIDE},CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
    }
    for name, value in settings.items():
        container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
    container.with_bind_ports(_INSIDE, port)
    container.start()
    return str(container.get_wrapped_container().id)


def is_running(container: str) -> bool:
    """Return whether a container runs."""
    docker = importlib.import_module("docker")
    try:
        found: Any = docker.from_env().containers.get(container)
    except docker.errors.NotFound:
        return False
    return bool(found.status == "running")


def end(container: str, *, kill: bool) -> None:
    """Stop a container and remove it, or only kill it."""
    found: Any = importlib.import_module("docker").from_env().containers.get(container)
    if kill:
        found.kill()
    else:
        found.stop()
        found.remove()
