"""The program `headwater`, beside the package: a Ctrl-C is heard while that is still being imported."""

from __future__ import annotations

import os
import signal
import sys

STOPPED = 130
"""Exit status after a Ctrl-C: 128 and the signal's number, as shells have it."""


def run() -> None:
    """Import the command line, run it, and exit with its status."""
    hears = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if hears:  # whoever has it ignored, as a shell does for what runs behind, has it ignored
        signal.signal(signal.SIGINT, _stop)
    from headwater.cli import main  # noqa: PLC0415 - what takes its time

    if hears:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main.main(sys.argv[1:]))


def _stop(number: int, frame: object) -> None:
    """End at once: nothing has begun, and an exception could be swallowed by whatever is imported."""
    os.write(2, b"headwater: stopped\n")
    os._exit(STOPPED)


if __name__ == "__main__":
    run()
