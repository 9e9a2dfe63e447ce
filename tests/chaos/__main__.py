"""Runs the matrix: `python -m tests.chaos [--cell NAME] [--messages N] [--seeds N] [--out FILE]`."""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import Any

from tests.chaos.cells import CELLS, Cell
from tests.chaos.nursery import ROOT
from tests.chaos.run import Run, StoppedError, Verdict
from tests.chaos.table import Row, Table

from headwater.log.broker import Broker

RECORDS_A_TASK = 10
CONTROL_SEEDS = 3
"""At how many seeds a control may be noticed: with fewer tasks, a fault may meet nothing that matters."""
CONTROL_TASKS = 500
FIRST = 2
UNTOLD = frozenset({"the fault", "processes"})
"""What does not hold of a control's run, and shows nothing of the protection."""
RESTLESS = frozenset({"1", "7"})
"""Neither do these by themselves: nobody waits until a control's run is at rest."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One run of a cell.

    Args:
        cell: The cell.
        seed: Its seed.
        control: The protection that is taken out; empty for none.
    """

    cell: Cell
    seed: int
    control: str = ""

    def __str__(self) -> str:
        return f"{self.cell.name} {self.control or f'seed {self.seed}'}"


class Matrix:
    """Runs cells, some at once, each worker on a broker of its own, and on another where that is killed.

    Args:
        table: Where rows go.
        messages: Least number of records a run consumes.
        directory: For brokers.
    """

    def __init__(self, table: Table, *, messages: int, directory: pathlib.Path) -> None:
        self._table, self._messages = table, messages
        self._directory = directory
        self._lock = threading.Lock()
        self._brokers: dict[str, Broker] = {}
        self._stop = threading.Event()
        self._said: dict[str, str] = {}
        self._commit = _commit()
        self._shown_s = 0.0

    def run(self, parts: Sequence[Part], *, jobs: int) -> None:
        """Run parts of cells; on Ctrl-C those that are under way clean up first."""
        pool = concurrent.futures.ThreadPoolExecutor(jobs, "cell")
        try:
            futures = [pool.submit(self._part, part) for part in parts]
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        finally:
            pool.shutdown()
            for broker in self._brokers.values():
                broker.kill()

    def _part(self, part: Part) -> None:
        began = time.monotonic()
        cell = part.cell
        lacks = cell.lacks()
        if lacks:
            row, state = Row(cell=cell.name, messages=self._messages, skipped=lacks), lacks
        elif part.control:
            row, state = self._control(part)
        else:
            row, state = self._seed(part)
        row = dataclasses.replace(row, commits=(self._commit,))
        with self._lock:
            self._said.pop(str(part), None)
            self._table.add(row, [one.name for one in CELLS])
        self._line(f"{part}: {state}; {time.monotonic() - began:.0f} s")

    def _seed(self, part: Part) -> tuple[Row, str]:
        verdict = self._play(part, -(-self._messages // RECORDS_A_TASK))
        wrong = _words(verdict)
        if not wrong and verdict.records < self._messages:
            wrong = f"it consumed {verdict.records:,} records, not {self._messages:,}"
        row = Row(
            cell=part.cell.name,
            messages=self._messages,
            seeds=(part.seed,),
            tasks=verdict.tasks,
            records=verdict.records,
            faults=verdict.met,
            seconds=round(verdict.seconds, 1),
            violations={str(part.seed): wrong} if wrong else {},
            words=(verdict.words,) if verdict.words else (),
            logs=(str(verdict.logs),) if verdict.logs else (),
        )
        size = f"{verdict.tasks:,} tasks, {verdict.records:,} records, {verdict.met} faults"
        return row, f"{size}: {wrong or 'holds'}"

    def _control(self, part: Part) -> tuple[Row, str]:
        tasks = -(-self._messages // RECORDS_A_TASK)
        tasks = min(tasks, max(CONTROL_TASKS, tasks // 4))
        rules = ""
        for seed in range(part.seed, part.seed + CONTROL_SEEDS):
            verdict = self._play(dataclasses.replace(part, seed=seed), tasks)
            wrong = [rule for rule in verdict.violations if rule not in UNTOLD]
            if verdict.met and {*wrong} - RESTLESS:  # otherwise it was the machine's fault
                rules = ", ".join(wrong) + (f"; seed {seed}" if seed > part.seed else "")
                break
        row = Row(cell=part.cell.name, messages=self._messages, controls={part.control: rules})
        return row, f"noticed by {rules}" if rules else "NOT NOTICED"

    def _play(self, part: Part, tasks: int) -> Verdict:
        def say(done: int, of: int) -> None:
            if self._stop.is_set():
                raise StoppedError
            self._show(str(part), f"{part} {done:,}/{of:,}")

        fault = part.cell.fault()
        broker = self._broker(str(part) if fault.own_broker else str(threading.get_ident()))
        try:
            run = Run(
                broker.start(),
                fault,
                tasks=tasks,
                seed=part.seed,
                sabotage=part.control,
                say=say,
                broker=broker,
            )
            return run.play()
        finally:
            if fault.own_broker:
                broker.kill()

    def _broker(self, whose: str) -> Broker:
        """Return a worker's broker, or a run's own."""
        with self._lock:
            broker = self._brokers.get(whose)
            if broker is None:
                path = self._directory / f"broker-{len(self._brokers)}"
                broker = self._brokers[whose] = Broker(path, docker=False)
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


def _commit() -> str:
    """Return the commit that runs, with a `+` if it was changed; nothing outside a repository."""
    named = ("git", "describe", "--always", "--abbrev=8", "--exclude=*")
    changed = ("git", "status", "--porcelain", "services", "tests/chaos")
    said, more = (
        subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
        for command in (named, changed)
    )
    return f"{said}{'+' * bool(more)}"


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
    usual = [cell.name for cell in CELLS if not cell.long]
    wanted = [cell for cell in CELLS if cell.name in (given.cell or usual)]
    if not given.resume:
        table.drop([cell.name for cell in wanted])
    parts = _parts(wanted, range(1, given.seeds + 1), table.rows(), given.messages)
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="headwater-chaos-") as directory:
        matrix = Matrix(table, messages=given.messages, directory=pathlib.Path(directory))
        matrix.run(parts, jobs=given.jobs)
    rows = [row for row in table.rows() if row.cell in {cell.name for cell in wanted}]
    bad = [row.cell for row in rows if not row.good]
    sys.stdout.write(f"{len(rows)} cells, {len(bad)} fail{': ' * bool(bad)}{', '.join(bad)}\n")
    return 1 if bad else 0


def _parts(
    cells: Sequence[Cell], seeds: Sequence[int], rows: Sequence[Row], messages: int
) -> list[Part]:
    """Return what is still to be run: of every cell one seed, then the controls, then the other seeds."""
    known = {row.cell: row for row in rows if row.messages == messages}
    first, rest = seeds[:1], seeds[1:]
    found = []
    for some in (first, (), rest):
        for cell in cells:
            row = known.get(cell.name, Row(cell=cell.name, messages=messages))
            found += [Part(cell=cell, seed=seed) for seed in some if seed not in row.seeds]
            if not some:
                missing = [kind for kind in cell.controls if not row.controls.get(kind)]
                found += [Part(cell=cell, seed=seeds[0], control=kind) for kind in missing]
    return found


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
