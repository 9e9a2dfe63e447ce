"""A call of the client that never returns ends the process; one that returns, or a freeze, does not."""

from __future__ import annotations

import subprocess
import sys
import threading

from headwater.log.kafka_watch import EXIT_STATUS, Watchdog


def hung(ticks: int, bound_s: float) -> list[str]:
    """Return what is said of a call that lasts for so many ticks."""
    words: list[str] = []
    watchdog = Watchdog(words.append, tick_s=1.0)
    watchdog.stop()  # the test ticks by itself
    with watchdog.over("commit", bound_s):
        for _ in range(ticks):
            watchdog.tick()
    return words


def test_a_call_over_its_bound_is_reported_by_name() -> None:
    """A hanging call would hold partitions while its heartbeats go on."""
    assert hung(ticks=12, bound_s=5.0)[0].startswith("the Kafka client's commit did not return")


def test_a_call_within_its_bound_is_not() -> None:
    """Grace covers a tick that comes early."""
    assert hung(ticks=7, bound_s=5.0) == []


def test_a_process_that_was_frozen_is_not_taken_for_one_that_hung() -> None:
    """It counts ticks of its own, and a frozen process has none."""
    assert hung(ticks=1, bound_s=0.0) == []


def test_a_call_that_ended_is_forgotten() -> None:
    """Also when it ended with an exception."""
    words: list[str] = []
    watchdog = Watchdog(words.append, tick_s=1.0)
    watchdog.stop()
    try:
        with watchdog.over("commit", 0.0):
            raise ValueError
    except ValueError:
        pass
    for _ in range(10):
        watchdog.tick()
    assert words == []


def test_it_looks_by_itself() -> None:
    """Nobody has to tick it."""
    said = threading.Event()
    watchdog = Watchdog(lambda _: said.set(), tick_s=0.01)
    with watchdog.over("poll", 0.0):
        assert said.wait(120)
    watchdog.stop()


def test_the_process_ends_with_its_stacks_on_stderr() -> None:
    """Whoever reads the log sees where it hung."""
    program = (
        "import threading\n"
        "from headwater.log.kafka_watch import Watchdog\n"
        "with Watchdog(tick_s=0.01).over('commit', 0.0):\n"
        "    threading.Event().wait(100)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == EXIT_STATUS
    assert "commit did not return in time" in done.stderr
    assert "most recent call first" in done.stderr
