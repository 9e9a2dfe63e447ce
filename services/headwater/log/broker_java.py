"""The local Kafka as a Java process, from Kafka's own jars, which Maven brings once."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping

from headwater.errors import SettingsError

KAFKA = "4.1.1"
JAVA_MIN = 17
MAVEN_S_MAX = 600
FORMAT_S_MAX = 60

_UP = "Kafka Server started"
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>headwater</groupId>
  <artifactId>local-kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "auto.create.topics.enable": "false",
    "log.message.timestamp.type": "LogAppendTime",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A plain offset commit takes 9 ms with the default linger, 2 ms without.
    "group.coordinator.append.linger.ms": "0",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A dead owner's transaction must have ended before its partitions move; the default is 10 s.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A killed broker waits for its own old session before it serves again; the default is 9 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Topics whose records are dropped at once would otherwise keep their files for a minute.
    "log.cleaner.backoff.ms": "500",
    "log.segment.delete.delay.ms": "1000",
    "log.cleaner.dedupe.buffer.size": "16777216",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "num.replica.fetchers": "1",
    "log.retention.check.interval.ms": "60000",
}


def jars(cache: pathlib.Path) -> pathlib.Path:
    """Return the directory of Kafka's jars, bringing them with Maven the first time.

    Raises:
        SettingsError: Java 17 or Maven is missing, or Maven failed.
    """
    _java()
    home = cache / f"kafka-{KAFKA}"
    lib = home / "lib"
    if lib.is_dir():
        return lib
    home.mkdir(parents=True, exist_ok=True)
    with locked(home / "lock"):
        if lib.is_dir():
            return lib
        maven = shutil.which("mvn")
        if maven is None:
            raise SettingsError(
                "a local Kafka needs Maven once, to bring Kafka's jars, and there is no `mvn` on the "
                "PATH: install it (`apt-get install maven`), start Docker, or name a broker with "
                "HEADWATER_KAFKA__BOOTSTRAP"
            )
        pom, arriving = home / "pom.xml", home / "arriving"
        pom.write_text(_POM, encoding="utf-8")
        shutil.rmtree(arriving, ignore_errors=True)
        done = subprocess.run(  # noqa: S603 - a program of this machine, with arguments of our own
            [
                maven,
                "-q",
                "-B",
                "-f",
                pom,
                "dependency:copy-dependencies",
                f"-DoutputDirectory={arriving}",
            ],
            capture_output=True,
            text=True,
            timeout=MAVEN_S_MAX,
            check=False,
        )
        if done.returncode:
            words = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
            raise SettingsError(
                f"Maven could not bring org.apache.kafka:kafka_2.13:{KAFKA}: "
                f"{words[0] if words else 'it said nothing'}; check its settings and the network"
            )
        arriving.rename(lib)
    return lib


def configure(
    lib: pathlib.Path, directory: pathlib.Path, port: int, more: Mapping[str, str]
) -> None:
    """Write a broker's settings, and format its directory the first time."""
    path = directory / "server.properties"
    settings = {
        **SETTINGS,
        "controller.quorum.voters": f"1@127.0.0.1:{port + 1}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "log.dirs": str(directory / "data"),
        **more,
    }
    path.write_text(
        "".join(f"{name}={value}\n" for name, value in settings.items()), encoding="utf-8"
    )
    if (directory / "data" / "meta.properties").exists():
        return
    done = subprocess.run(  # noqa: S603 - as above
        [
            _java(),
            "-cp",
            f"{lib}/*",
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster_id()}",
            "-c",
            path,
        ],
        capture_output=True,
        text=True,
        timeout=FORMAT_S_MAX,
        check=False,
    )
    if done.returncode:
        raise SettingsError(
            f"{directory} cannot hold a broker's data: {done.stderr.strip()[-500:]}"
        )


def launch(lib: pathlib.Path, directory: pathlib.Path, *, heap_mb: int) -> int:
    """Start the process; return its pid."""
    log = directory / "broker.log"
    simple = "-Dorg.slf4j.simpleLogger"
    with log.open("wb") as words:
        process = subprocess.Popen(  # noqa: S603 - as above
            [
                _java(),
                f"-Xmx{heap_mb}m",
                "-XX:+UseSerialGC",
                f"{simple}.defaultLogLevel=warn",
                f"{simple}.log.kafka.server.KafkaRaftServer=info",
                "-cp",
                f"{lib}/*",
                "kafka.Kafka",
                str(directory / "server.properties"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at the terminal is not for the broker
        )
    process.returncode = 0  # it outlives this object on purpose, which would warn about that
    return process.pid


def is_up(directory: pathlib.Path) -> bool:
    """Return whether the broker has said, in its log, that it serves."""
    return _UP in (directory / "broker.log").read_text(encoding="utf-8", errors="replace")


def lost_its_port(directory: pathlib.Path) -> bool:
    """Return whether the broker ended because someone else took its port."""
    words = (directory / "broker.log").read_text(encoding="utf-8", errors="replace")
    return "BindException" in words or "Address already in use" in words


def port_of(directory: pathlib.Path) -> int | None:
    """Return the port of the broker's earlier life."""
    if not (directory / "data" / "meta.properties").exists():
        return None
    words = (directory / "server.properties").read_text(encoding="utf-8")
    found = re.search(r"^listeners=PLAINTEXT://127\.0\.0\.1:(\d+)", words, re.MULTILINE)
    return int(found[1]) if found else None


def forget(directory: pathlib.Path) -> None:
    """Delete a broker's data."""
    shutil.rmtree(directory / "data", ignore_errors=True)


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Hold a file's lock, so that two processes do not do the same thing at once."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def cluster_id(draw: Callable[[], bytes] = lambda: uuid.uuid4().bytes) -> str:
    """Return a fresh id as Kafka draws its own: base64, and never one that reads as an option."""
    while True:
        found = base64.urlsafe_b64encode(draw()).decode("ascii").rstrip("=")
        if not found.startswith("-"):
            return found


def _java() -> str:
    found = shutil.which("java")
    home = os.environ.get("JAVA_HOME", "")
    if found is None and home:
        found = shutil.which("java", path=str(pathlib.Path(home) / "bin"))
    elsewhere = "start Docker, or name a broker with HEADWATER_KAFKA__BOOTSTRAP"
    if found is None:
        raise SettingsError(
            f"a local Kafka needs Java {JAVA_MIN} or later, and there is no `java` on the PATH: install it "
            f"(`apt-get install openjdk-17-jre-headless`), {elsewhere}"
        )
    told = subprocess.run(  # noqa: S603 - as above
        [found, "-version"], capture_output=True, text=True, timeout=30, check=False
    ).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < JAVA_MIN:
        raise SettingsError(
            f"a local Kafka needs Java {JAVA_MIN} or later, and {found} is "
            f"{version[1] if version else 'of unknown version'}: install a later one, {elsewhere}"
        )
    return found
