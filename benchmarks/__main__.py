"""Runs benchmarks: `python -m benchmarks [QUESTION]`; each prints `NAME median ratio R` and its breakdown."""

from __future__ import annotations

import importlib
import sys

QUESTIONS = (
    "blocked-key",
    "call",
    "eos-tax",
    "guard",
    "hop",
    "latency",
    "memory",
    "replay",
    "restore",
    "waiting-tools",
)


def main(arguments: list[str]) -> int:
    """Run the questions named, or all."""
    unknown = [name for name in arguments if name not in QUESTIONS]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(QUESTIONS)}", file=sys.stderr)
        return 2
    for name in arguments or QUESTIONS:
        importlib.import_module(f"benchmarks.{name.replace('-', '_')}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
