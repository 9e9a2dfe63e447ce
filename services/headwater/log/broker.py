"""A local Kafka for laptops and tests.

The first that works: a broker that is named already, Docker through testcontainers, and Java 17
with Kafka's own jars from Maven. Its data survive a kill, so it can die and come back like a real
one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import time
from collections.abc import Callable, Mapping

from headwater.errors import HeadwaterError, SettingsError
from headwater.log import broker_docker, broker_java

START_S_MAX = 60.0
STOP_S_MAX = 30.0
LET_GO_S_MAX = 3.0
"""How long a process that was killed may hold its port: it is said to be dead before its threads are."""
_STATE = "broker.json"
_LENT = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOOK_S = 0.05


class BrokerError(HeadwaterError):
    """The local Kafka did not start or stop; the message says where its own words are."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A broker that was started.

    Args:
        kind: `external`, `docker` or `java`.
        bootstrap: `host:port`.
        pid: Of the Java process; 0 for the other kinds.
        born: The process's start in clock ticks since boot, so that a reused pid is not taken for it.
        container: Docker's id; empty for the other kinds.
    """

    kind: str
    bootstrap: str
    pid: int = 0
    born: int = 0
    container: str = ""

    @property
    def alive(self) -> bool:
        """Whether it runs now; of an external one, whether its port answers."""
        if self.kind == "java":
            return born(self.pid) == self.born
        if self.kind == "docker":
            return broker_docker.is_running(self.container)
        return answers(self.bootstrap)


class Broker:
    """One local Kafka and the directory that holds its data, settings and log.

    Args:
        directory: Made if it is not there. The same directory gives the same broker again.
        cache: Where jars are kept between brokers; by default the user's cache directory.
        external: `host:port` of a broker to use instead of starting one, unless it is this one's own.
        docker: Whether to try Docker.
        heap_mb: Most heap of the Java process.
        settings: Of the Java broker, over its own: an authorizer, for example.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        *,
        cache: pathlib.Path | None = None,
        external: str = "",
        docker: bool = True,
        heap_mb: int = 768,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self._cache = cache or pathlib.Path.home() / ".cache" / "headwater"
        self._external = external
        self._docker = docker
        self._heap_mb = heap_mb
        self._settings = settings or {}

    @property
    def log_path(self) -> pathlib.Path:
        """The file of the broker's own words."""
        return self.directory / "broker.log"

    def start(self, port: int | None = None) -> str:
        """Start it, or find it running; with data from an earlier life it goes on with them.

        Args:
            port: Where to listen; by default the port of its earlier life, or a free one.

        Returns:
            Its bootstrap, `host:port`.

        Raises:
            SettingsError: Nothing is there to start it with; the message names what to install.
            BrokerError: It did not come up.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with broker_java.locked(self.directory / "lock"):
            running = self.status()
            if running is not None:
                return running.bootstrap
            running = self._start(port)
            path = self.directory / _STATE
            path.write_text(json.dumps(dataclasses.asdict(running)), encoding="utf-8")
            return running.bootstrap

    def status(self) -> Running | None:
        """Return the broker if it runs."""
        try:
            found = json.loads((self.directory / _STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        running = Running(**found)
        return running if running.alive else None

    def stop(self) -> bool:
        """Stop it cleanly; an external one is left alone. Returns whether there was one to stop."""
        return self._end(signal.SIGTERM)

    def kill(self) -> bool:
        """Kill it at once, as a power failure would; its data stay."""
        return self._end(signal.SIGKILL)

    def _start(self, port: int | None) -> Running:
        if self._external and not self._was(self._external):
            return Running(kind="external", bootstrap=self._external)
        wanted = port or broker_java.port_of(self.directory)
        if wanted is not None:
            refuse_taken(wanted)
        if self._docker and broker_docker.engine_answers():
            chosen = port or free_port()
            container = broker_docker.start(chosen)
            running = Running(kind="docker", bootstrap=f"127.0.0.1:{chosen}", container=container)
            _until(lambda: answers(running.bootstrap), START_S_MAX, "the Docker broker to answer")
            return running
        return self._start_java(port)

    def _was(self, bootstrap: str) -> bool:
        """Say whether an address is that of this broker's own earlier life."""
        return bootstrap == f"127.0.0.1:{broker_java.port_of(self.directory)}"

    def _start_java(self, port: int | None) -> Running:
        lib = broker_java.jars(self._cache)
        earlier = broker_java.port_of(self.directory)
        attempts = 1 if port or earlier else 5
        for attempt in range(1, attempts + 1):
            chosen = port or earlier or free_port()
            broker_java.configure(lib, self.directory, chosen, self._settings)
            pid = broker_java.launch(lib, self.directory, heap_mb=self._heap_mb)
            running = Running(
                kind="java", bootstrap=f"127.0.0.1:{chosen}", pid=pid, born=born(pid) or 0
            )
            if self._came_up(running):
                return running
            if attempt < attempts and broker_java.lost_its_port(self.directory):
                broker_java.forget(self.directory)
                continue
            break
        raise BrokerError(f"the local Kafka ended as it started; its last words: {self._tail()}")

    def _came_up(self, running: Running) -> bool:
        def settled() -> bool:
            return broker_java.is_up(self.directory) or not running.alive

        try:
            _until(settled, START_S_MAX, "the broker to start")
        except BrokerError:
            os.kill(running.pid, signal.SIGKILL)
            raise
        return running.alive

    def _tail(self) -> str:
        words = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        causes = [
            line for line in words if "Exception" in line and not line.startswith(("\t", " "))
        ]
        last = causes[-1:] or words[-1:] or ["none"]
        return f"{last[0].removeprefix('Caused by: ')} (all of them in {self.log_path})"

    def _end(self, number: signal.Signals) -> bool:
        running = self.status()
        if running is None:
            return False
        if running.kind == "docker":
            broker_docker.end(running.container, kill=number == signal.SIGKILL)
        elif running.kind == "java":
            with contextlib.suppress(ProcessLookupError):
                os.kill(running.pid, number)
            try:
                _until(lambda: not running.alive, STOP_S_MAX, "the broker to stop")
            except BrokerError:
                os.kill(running.pid, signal.SIGKILL)
                _until(lambda: not running.alive, STOP_S_MAX, "the killed broker to end")
        (self.directory / _STATE).unlink(missing_ok=True)
        return running.kind != "external"


def born(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot; `None` if it does not run."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own child would stay as a zombie otherwise
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, started = fields.split()[0], fields.split()[19]
    return None if state in "ZX" else int(started)


def answers(bootstrap: str) -> bool:
    """Return whether something listens there."""
    host, _, port = bootstrap.split(",", maxsplit=1)[0].rpartition(":")
    if not host or not port.isdigit():
        raise SettingsError(f"{bootstrap!r} is not host:port: set HEADWATER_KAFKA__BOOTSTRAP")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except OSError:
        return False


def refuse_taken(port: int) -> None:
    """Refuse a port that something else listens on; the controller takes the one after it.

    Raises:
        BrokerError: One of the two is taken.
    """
    for number, whose in (
        (port, ""),
        (port + 1, f", which the controller of a broker at {port} takes,"),
    ):
        until_s = time.monotonic() + LET_GO_S_MAX
        while not _is_free(number):
            if time.monotonic() < until_s:
                time.sleep(_LOOK_S)
                continue
            raise BrokerError(
                f"port {number}{whose} is taken on 127.0.0.1: `headwater broker start --port N` takes "
                "another, a new broker without --port finds a free one"
            )


def lent(port: int) -> tuple[int, int] | None:
    """Return the ports that the kernel lends to clients, if this is one; `None` if not, or unknown."""
    try:
        first, last = map(int, _LENT.read_text(encoding="ascii").split())
    except OSError:
        return None
    return (first, last) if first <= port <= last else None


def free_port() -> int:
    """Return a free port whose successor is free too, below those that the kernel lends to clients.

    A broker must get the same port again after its death, so no client may have borrowed it.
    """
    first = 20_000 + (os.getpid() * 7 + time.monotonic_ns()) % 6_000 * 2
    for at in range(6_000):
        port = 20_000 + (first - 20_000 + at * 2) % 12_000
        if _is_free(port) and _is_free(port + 1):
            return port
    raise BrokerError("no free port between 20,000 and 32,000 on 127.0.0.1")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _until(condition: Callable[[], bool], wait_s: float, what: str) -> None:
    end = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > end:
            raise BrokerError(f"waited {wait_s:.0f} s for {what}")
        time.sleep(_LOOK_S)
