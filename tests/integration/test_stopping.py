"""What the tests stop stands still from then on."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

from tests.stopping import group, stop

COUNTING = """
import sys, threading
def count():
    with open(sys.argv[1], "ab", buffering=0) as out:
        while True:
            out.write(b".")
others = [threading.Thread(target=count) for _ in range(3)]
[one.start() for one in others]
count()
"""


def test_what_was_stopped_does_nothing_more(tmp_path: pathlib.Path) -> None:
    """Whoever notes the time after that knows that nothing was done later."""
    written = tmp_path / "written"
    command = [sys.executable, "-c", COUNTING, str(written)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        while not written.exists() or not written.stat().st_size:
            time.sleep(0.01)
        assert group(process.pid) == [process.pid]
        stop(process.pid)
        size = written.stat().st_size
        time.sleep(0.3)
        assert written.stat().st_size == size
        os.kill(process.pid, signal.SIGCONT)
        while written.stat().st_size == size:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait(60)
