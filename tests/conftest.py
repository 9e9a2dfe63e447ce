"""What tests share: one real Kafka per test run, started by the first test that asks for it.

All workers of one run use the same broker, in a temporary directory on free ports, so two runs at
once do not meet. The run's first process stops it, by its pid; should that process be killed, a
guard stops the broker instead.
"""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from tests.starting import started

from headwater.log import broker, broker_java
from headwater.log.broker import Broker

# In CI the same examples every time; nowhere a deadline: how long one takes says how busy a machine is.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("laptop", deadline=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "laptop")

# `readline`, which pytest loads, tells every child process of a terminal: commands would break their lines.
os.environ.pop("COLUMNS", None)
os.unsetenv("COLUMNS")

# What a slow machine takes is no failure: these end a hang, and no more.
broker.START_S_MAX = broker.STOP_S_MAX = 300.0
broker_java.FORMAT_S_MAX = 300

_LET_GO_S = 60.0
"""How long a broker that a test killed may hold its ports on a busy machine."""
_GUARD = (
    'while kill -0 "$0" 2>/dev/null && kill -0 "$1" 2>/dev/null; do sleep 2; done; kill -9 "$1"'
)
_SHARED = pytest.StashKey[pathlib.Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Choose the run's directory, in its first process alone."""
    given = getattr(config, "workerinput", None)
    if given is not None:
        config.stash[_SHARED] = pathlib.Path(given["kafka_directory"])
    else:
        config.stash[_SHARED] = pathlib.Path(tempfile.mkdtemp(prefix="headwater-kafka-"))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist where the run's broker is."""
    node.workerinput["kafka_directory"] = str(node.config.stash[_SHARED])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what the run started, after the last worker has ended."""
    if hasattr(config, "workerinput"):
        return
    directory = config.stash[_SHARED]
    if (directory / "broker").is_dir():
        _broker(directory / "broker").kill()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have the run's report print a line, from any worker."""

    def line(text: str) -> None:
        request.node.user_properties.append(("said", text))

    return line


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests had to say."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    said = [
        (report.nodeid, text)
        for report in reports
        if report.when == "call"
        for name, text in report.user_properties
        if name == "said"
    ]
    if said:
        terminalreporter.section("what tests report")
    for node, text in said:
        terminalreporter.write_line(f"{node.rpartition('::')[2]}: {text}")


def _broker(directory: pathlib.Path) -> Broker:
    return Broker(directory, external=os.environ.get("HEADWATER_KAFKA__BOOTSTRAP", ""))


@pytest.fixture(scope="session")
def kafka(pytestconfig: pytest.Config) -> str:
    """The bootstrap of the run's broker, which tests share and never stop."""
    directory = pytestconfig.stash[_SHARED] / "broker"
    found = _broker(directory)
    bootstrap = started(found)
    _guard(found, pytestconfig)
    return bootstrap


@pytest.fixture
def own_kafka(
    tmp_path: pathlib.Path, pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Broker]:
    """A broker of one test's own, which it may kill and start again."""
    monkeypatch.setattr(broker, "LET_GO_S_MAX", _LET_GO_S)
    found = Broker(tmp_path / "broker", docker=False)
    started(found)
    _guard(found, pytestconfig)
    yield found
    found.kill()


def _guard(found: Broker, config: pytest.Config) -> None:
    running = found.status()
    if running is None or running.kind != "java":
        return
    first = os.getppid() if hasattr(config, "workerinput") else os.getpid()
    guard = subprocess.Popen(
        ["sh", "-c", _GUARD, str(first), str(running.pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    guard.returncode = 0  # it ends when the broker does


@pytest.fixture(autouse=True)
def _said_as_before() -> Iterator[None]:
    """Commands that a test runs in this process may quieten our loggers; the next test hears them."""
    loggers = [logging.getLogger(name) for name in ("headwater", "headwater.log")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
