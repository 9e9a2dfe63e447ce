"""Run the benchmarks, each in a process of its own: `python -m benchmarks [QUESTION]`."""

from __future__ import annotations

import pathlib
import subprocess
import sys

_HERE = pathlib.Path(__file__).parent


def questions() -> list[str]:
    return sorted(path.stem for path in _HERE.glob("*.py") if not path.stem.startswith("_"))


def main(arguments: list[str]) -> int:
    known = questions()
    asked = arguments or known
    unknown = [name for name in asked if name not in known]
    if unknown:
        print(f"no benchmark {unknown[0]!r}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    failed = [name for name in asked if subprocess.call([sys.executable, _HERE / f"{name}.py"])]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
