"""What is missing for a local Kafka is said plainly, and what is found is used."""

from __future__ import annotations

import os
import pathlib
import socket
import stat

import pytest

from headwater.errors import SettingsError
from headwater.log import broker, broker_docker, broker_java
from headwater.log.broker import Broker, Running


def program(directory: pathlib.Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A directory that is the whole PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return directory


def test_without_java_it_names_what_to_install(
    programs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A newcomer is told of the package, of Docker, and of the variable."""
    with pytest.raises(SettingsError, match=r"Java 17.*openjdk-17.*HEADWATER_KAFKA__BOOTSTRAP"):
        Broker(tmp_path / "b", cache=tmp_path / "cache", docker=False).start()


def test_an_old_java_is_named_with_its_version(
    programs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Kafka 4 needs 17."""
    program(programs, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    with pytest.raises(SettingsError, match=r"is 11: install a later one"):
        broker_java.jars(tmp_path / "cache")


def test_a_java_of_unknown_version_is_refused(
    programs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Whatever that program is, it says no version."""
    program(programs, "java", "exit 0")
    with pytest.raises(SettingsError, match="unknown version"):
        broker_java.jars(tmp_path / "cache")


def test_without_maven_it_names_what_to_install(
    programs: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Maven is needed once, for the jars."""
    program(programs, "java", "echo 'openjdk version \"17.0.2\"' >&2")
    with pytest.raises(SettingsError, match=r"needs Maven once.*apt-get install maven"):
        broker_java.jars(tmp_path / "cache")


def test_a_maven_that_fails_is_quoted(programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Its first error line is the one that helps; nothing half-brought is kept."""
    program(programs, "java", "echo 'openjdk version \"21\"' >&2")
    program(programs, "mvn", "echo '[ERROR] no route to central'; exit 1")
    for _ in range(2):
        with pytest.raises(SettingsError, match="no route to central"):
            broker_java.jars(tmp_path / "cache")


def test_jars_are_brought_once(programs: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The second broker needs neither Maven nor a network."""
    program(programs, "java", "echo 'openjdk version \"17.0.2\"' >&2")
    program(
        programs,
        "mvn",
        'for a; do case $a in -DoutputDirectory=*) /bin/mkdir "${a#*=}";; esac; done',
    )
    lib = broker_java.jars(tmp_path / "cache")
    (programs / "mvn").unlink()
    assert broker_java.jars(tmp_path / "cache") == lib
    assert "4.1.1" in (lib.parent / "pom.xml").read_text(encoding="utf-8")


def test_java_home_is_a_java_too(
    programs: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Java that is not on the PATH is found where its own variable says."""
    (tmp_path / "home" / "bin").mkdir(parents=True)
    program(tmp_path / "home" / "bin", "java", "echo 'openjdk version \"17.0.2\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    with pytest.raises(SettingsError, match="Maven"):
        broker_java.jars(tmp_path / "cache")


def test_a_named_broker_is_used_and_never_stopped(tmp_path: pathlib.Path) -> None:
    """Somebody else's Kafka is not ours to end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bootstrap = f"127.0.0.1:{listener.getsockname()[1]}"
        named = Broker(tmp_path / "b", external=bootstrap)
        assert named.start() == bootstrap
        assert named.status() == Running(kind="external", bootstrap=bootstrap)
        assert not named.stop()
    assert not broker.answers(bootstrap)


def test_a_bootstrap_without_a_port_is_refused_by_name() -> None:
    """It would otherwise be a hang."""
    with pytest.raises(SettingsError, match="HEADWATER_KAFKA__BOOTSTRAP"):
        broker.answers("localhost")


def test_a_pid_that_another_process_has_by_now_is_not_ours() -> None:
    """Nothing is killed that was not started here."""
    born = broker.born(os.getpid())
    assert born is not None
    assert Running(kind="java", bootstrap="x:1", pid=os.getpid(), born=born).alive
    assert not Running(kind="java", bootstrap="x:1", pid=os.getpid(), born=born - 1).alive
    assert broker.born(2**22 + 1) is None


def test_free_ports_come_in_pairs_below_those_lent_to_clients() -> None:
    """A broker gets its port back after its death, so no client may have borrowed it."""
    for others in (True, True, False):  # another process may take one of them before we do
        port = broker.free_port()
        assert 20_000 <= port < 32_000
        try:
            for number in (port, port + 1):
                with socket.create_server(("127.0.0.1", number)):
                    pass
        except OSError:
            assert others, f"{number} is taken"
        else:
            break


def test_docker_is_not_tried_where_its_library_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an optional extra."""
    monkeypatch.setattr(broker_docker.importlib.util, "find_spec", lambda _: None)
    assert not broker_docker.engine_answers()


def test_a_clusters_id_never_reads_as_an_option():
    """Kafka's own tool refuses an id that begins with a dash: one in 64 would."""
    drawn = iter([b"\xf8" * 16, b"\xfb" * 16, b"\x00" * 16])
    assert broker_java.cluster_id(lambda: next(drawn)) == "A" * 22


@pytest.mark.parametrize("after", [0, 1])
def test_a_port_that_is_taken_is_one_line_before_anything_starts(
    programs: pathlib.Path, tmp_path: pathlib.Path, after: int
) -> None:
    """Its own, or the one after it, which the controller takes."""
    number = broker.free_port() + after
    with (
        socket.create_server(("127.0.0.1", number)),
        pytest.raises(broker.BrokerError, match=f"^port {number}.* is taken on 127.0.0.1: "),
    ):
        Broker(tmp_path / "b", docker=False).start(number - after)
    assert not (tmp_path / "b" / "broker.log").exists()


def test_what_a_broker_died_of_is_a_cause_and_no_frame(tmp_path: pathlib.Path) -> None:
    """The last lines of a log of Java's are places in its code."""
    own = Broker(tmp_path, docker=False)
    own.log_path.write_text(
        "java.lang.RuntimeException: fatal\n\tat a.B.c(B.java:1)\nCaused by: java.io.IOException: disk full\n"
        "\tat a.B.d(B.java:2)\n\t... 18 more\n"
    )
    assert own._tail() == f"java.io.IOException: disk full (all of them in {own.log_path})"
    own.log_path.write_text("one\ntwo\n")
    assert own._tail().startswith("two (")
    own.log_path.write_text("")
    assert own._tail().startswith("none (")


def test_ports_that_the_kernel_lends_to_clients_are_known(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker's own port should be none of them."""
    file = tmp_path / "range"
    file.write_text("32768\t60999\n")
    monkeypatch.setattr(broker, "_LENT", file)
    assert [broker.lent(port) for port in (32_767, 32_768, 60_999, 61_000)] == [
        None,
        (32_768, 60_999),
        (32_768, 60_999),
        None,
    ]
    monkeypatch.setattr(broker, "_LENT", tmp_path / "nowhere")
    assert broker.lent(40_000) is None
