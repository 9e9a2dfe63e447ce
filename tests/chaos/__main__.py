"""Runs the matrix: `python -m tests.chaos [--cell NAME] [--messages N] [--seeds N] [--out FILE]`."""

from __future__ import annotations

import argparse
import concurrent.futures
import pathlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.chaos.cells import CELLS, Cell
from tests.chaos.run import Run, StoppedError, Verdict
from tests.chaos.table import Row, Table

from headwater.log.broker import Broker

RECORDS_A_TASK = 10
CONTROL_TASKS = 500
FIRST = 2
UNTOLD = frozenset({"the fault", "processes"})
"""What does not hold of a control's run, and shows nothing of the protection."""


class Matrix:
    """Runs cells, some at once, each worker on a broker of its own.

    Args:
        table: Where rows go.
        messages: Least number of records a run consumes.
        seeds: The seeds.
        directory: For brokers.
    """

    def __init__(
        self, table: Table, *, messages: int, seeds: Sequence[int], directory: pathlib.Path
    ) -> None:
        self._table, self._messages, self._seeds = table, messages, tuple(seeds)
        self._directory = directory
        self._lock = threading.Lock()
        self._brokers: dict[int, Broker] = {}
        self._stop = threading.Event()
        self._said: dict[str, str] = {}
        self._shown_s = 0.0

    def run(self, cells: Sequence[Cell], *, jobs: int) -> list[Row]:
        """Run them, and return their rows; on Ctrl-C those that are under way clean up first."""
        rows: list[Row] = []
        pool = concurrent.futures.ThreadPoolExecutor(jobs, "cell")
        try:
            futures = [pool.submit(self._cell, cell) for cell in cells]
            rows.extend(one.result() for one in concurrent.futures.as_completed(futures))
        except BaseException:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            pool.shutdown()
            for broker in self._brokers.values():
                broker.kill()
        return rows

    def _cell(self, cell: Cell) -> Row:
        began = time.monotonic()
        row = self._played(cell)
        with self._lock:
            self._said.pop(cell.name, None)
            self._table.put(row, [one.name for one in CELLS])
        state = f"skipped: {row.skipped}" if row.skipped else "holds" if row.good else "FAILS"
        self._line(
            f"{cell.name}: {state}; {row.tasks:,} tasks, {row.records:,} records, {row.faults} "
            f"faults, controls {dict(row.controls)}, {time.monotonic() - began:.0f} s"
        )
        for of, what in row.violations.items():
            self._line(f"  seed {of}: {what}")
        return row

    def _played(self, cell: Cell) -> Row:
        if lacks := cell.lacks():
            return Row(cell=cell.name, messages=self._messages, seeds=(), skipped=lacks)
        tasks = -(-self._messages // RECORDS_A_TASK)
        verdicts = {seed: self._play(cell, tasks, seed) for seed in self._seeds}
        violations = {str(seed): what for seed, v in verdicts.items() if (what := _words(v))}
        if short := [v.records for v in verdicts.values() if v.records < self._messages]:
            violations["all"] = f"a run consumed {min(short):,} records, not {self._messages:,}"
        few = min(tasks, max(CONTROL_TASKS, tasks // 4))
        controls = {}
        for kind in cell.controls:
            noticed = self._play(cell, few, self._seeds[0], kind).violations
            controls[kind] = ", ".join(rule for rule in noticed if rule not in UNTOLD)
        return Row(
            cell=cell.name,
            messages=self._messages,
            seeds=self._seeds,
            tasks=sum(v.tasks for v in verdicts.values()),
            records=sum(v.records for v in verdicts.values()),
            faults=sum(v.met for v in verdicts.values()),
            seconds=round(sum(v.seconds for v in verdicts.values()), 1),
            violations=violations,
            controls=controls,
            words="; ".join({v.words: None for v in verdicts.values() if v.words}),
            logs=tuple(str(v.logs) for v in verdicts.values() if v.violations),
        )

    def _play(self, cell: Cell, tasks: int, seed: int, sabotage: str = "") -> Verdict:
        def say(done: int, of: int) -> None:
            if self._stop.is_set():
                raise StoppedError
            what = sabotage or f"seed {seed}"
            self._show(cell.name, f"{cell.name} {what} {done:,}/{of:,}")

        broker = self._broker()
        run = Run(
            broker.start(),
            cell.fault(),
            tasks=tasks,
            seed=seed,
            sabotage=sabotage,
            say=say,
            broker=broker,
        )
        return run.play()

    def _broker(self) -> Broker:
        """Return the worker's own broker."""
        me = threading.get_ident()
        with self._lock:
            broker = self._brokers.get(me)
            if broker is None:
                path = self._directory / f"broker-{len(self._brokers)}"
                broker = self._brokers[me] = Broker(path, docker=False)
        return broker

    def _show(self, cell: str, words: str) -> None:
        with self._lock:
            self._said[cell] = words
            now_s = time.monotonic()
            if not sys.stderr.isatty() or now_s - self._shown_s < 0.2:
                return
            self._shown_s = now_s
            sys.stderr.write("\r\x1b[2K" + "   ".join(self._said.values())[:150])
            sys.stderr.flush()

    def _line(self, text: str) -> None:
        with self._lock:
            sys.stdout.write(("\r\x1b[2K" if sys.stderr.isatty() else "") + text + "\n")
            sys.stdout.flush()


def _words(verdict: Verdict) -> str:
    return "; ".join(
        f"rule {rule}: {len(wrong)}, the first: {'; '.join(wrong[:FIRST])}"
        for rule, wrong in verdict.violations.items()
    )


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; 1 if something does not hold or a control was not noticed."""
    names = [cell.name for cell in CELLS]
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--cell", action="append", choices=names, help="only this; repeatable")
    parser.add_argument("--messages", type=int, default=20_000, help="least records a run consumes")
    parser.add_argument("--seeds", type=int, default=3, help="how many runs a cell")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/chaos.md"))
    parser.add_argument("--resume", action="store_true", help="leave out what the page has already")
    parser.add_argument("--jobs", type=int, default=2, help="how many cells at once")
    given = parser.parse_args(arguments)
    table = Table(given.out)
    done = {
        row.cell
        for row in table.rows()
        if given.resume
        and row.good
        and row.messages >= given.messages
        and len(row.seeds) >= given.seeds
    }
    wanted = [c for c in CELLS if c.name in (given.cell or names) and c.name not in done]
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="headwater-chaos-") as directory:
        matrix = Matrix(
            table,
            messages=given.messages,
            seeds=range(1, given.seeds + 1),
            directory=pathlib.Path(directory),
        )
        rows = matrix.run(wanted, jobs=given.jobs)
    bad = [row.cell for row in rows if not row.good and not row.skipped]
    sys.stdout.write(f"{len(rows)} cells, {len(bad)} fail{': ' * bool(bad)}{', '.join(bad)}\n")
    return 1 if bad else 0


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
