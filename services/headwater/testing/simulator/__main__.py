"""Runs the command, in a process whose sets iterate alike everywhere."""

from __future__ import annotations

import os
import sys

from headwater.testing.simulator import command

if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        arguments = [sys.executable, "-m", "headwater.testing.simulator", *sys.argv[1:]]
        os.execv(sys.executable, arguments)  # noqa: S606 - itself
    sys.exit(command.main())
