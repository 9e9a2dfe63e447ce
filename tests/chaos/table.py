"""What the matrix found: kept cell by cell as JSON, shown as a page."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from headwater.testing.invariants import RULES

TOLD_ALONE = 13
"""The invariant that compares with runs alone, which only the simulator plays; `answers` stands for it."""
HEAD = """# Chaos on a real Kafka

`make chaos` writes this page. In each run a fleet of two processes, each with every role but the
gateway, works through its tasks on a real broker while one fault meets it at places that the seed
chooses. Every seventh task is published twice. A task asks a model and a `read` tool at once, then
files with a `write` tool that has an order key; each third then pays with an `irreversible` tool.
Afterwards plain read-committed clients read everything back.

**How to read it.** *records* are the Kafka records that the roles consumed (commands, inboxes,
requests), *faults* how often the fault happened, in all runs of the cell together; *at* is the commit
that ran, with a `+` if it was changed. A verdict is `holds`, or the rules that do not hold, by number.
A *control* is the same cell with one protection taken out, with a quarter of the tasks and at three
seeds at most: it has to be noticed, and the table shows by which rules. A cell that could not run says why.

The rules are the invariants of `headwater.testing.invariants`, which judge simulated histories too; here
they are given what plain clients read back, and a file of what calls did to the world outside. A call
counts as begun when it is handed to the code that acts: a process that is frozen after that acts late,
which nobody promises otherwise.

@RULES@
`answers`: every question has one outcome, the answer that plain functions give, and nothing is refused.
`the cell`: what the cell asks for besides; a rolling deploy, that no payment had to be looked up.

**How to run it.** `make chaos` runs everything; `make chaos CELL=freeze` one cell;
`make chaos MESSAGES=2000 SEEDS_A_CELL=1 OUT=/tmp/chaos.md` a quick look. Cells that the page has
already, with as many messages and seeds, are left out with `RESUME=1`. A run that fails leaves what its
processes said in a directory that `chaos.json` names. `rolling-deploy-long`, whose payments take ten
minutes, runs only if it is named: `make chaos CELL=rolling-deploy-long MESSAGES=5000 SEEDS_A_CELL=1`.
It has no control of its own; that of `rolling-deploy` is the same.

"""
RELATED = """`make kill-test` kills workers in the middle of 100 slow model calls and 100 payments over HTTP;
`make recovery` prints how long partitions stand still when their worker is killed.

"""
NEWEST = "## The newest table\n\n"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What became of a cell.

    Args:
        cell: Its name.
        messages: Least number of records a run was to consume.
        seeds: The seeds.
        tasks: Of all runs together.
        records: Of all runs together.
        faults: Of all runs together.
        seconds: Of all runs together.
        violations: By seed and rule, what does not hold: how many, and the first of them.
        controls: By protection taken out, the rules that noticed; empty if none did.
        skipped: Why it could not run.
        words: What else there is to say.
        logs: Directories of runs that failed.
        commits: What ran: commits of this repository.
    """

    cell: str
    messages: int
    seeds: tuple[int, ...] = ()
    tasks: int = 0
    records: int = 0
    faults: int = 0
    seconds: float = 0.0
    violations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    controls: Mapping[str, str] = dataclasses.field(default_factory=dict)
    skipped: str = ""
    words: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether everything holds, and every control was noticed; or it says why it could not run."""
        held = bool(self.seeds) and not self.violations and all(self.controls.values())
        return bool(self.skipped) or held

    def plus(self, other: Row) -> Row:
        """Return what both found together."""
        return dataclasses.replace(
            self,
            seeds=tuple(sorted({*self.seeds, *other.seeds})),
            tasks=self.tasks + other.tasks,
            records=self.records + other.records,
            faults=self.faults + other.faults,
            seconds=round(self.seconds + other.seconds, 1),
            violations={**self.violations, **other.violations},
            controls={**self.controls, **other.controls},
            words=tuple(dict.fromkeys([*self.words, *other.words])),
            logs=self.logs + other.logs,
            commits=tuple(dict.fromkeys([*self.commits, *other.commits])),
        )


class Table:
    """The rows, beside the page that shows them.

    Args:
        path: The page; the rows are in the file of the same name that ends in `.json`.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._page, self._kept = path, path.with_suffix(".json")

    def rows(self) -> list[Row]:
        """Return the rows of earlier."""
        if not self._kept.exists():
            return []
        found = json.loads(self._kept.read_text(encoding="utf-8"))
        lists = ("seeds", "words", "logs", "commits")
        return [Row(**row | {name: tuple(row[name]) for name in lists}) for row in found]

    def drop(self, cells: Collection[str]) -> None:
        """Forget what some cells came to."""
        if self._kept.exists():
            self._keep([row for row in self.rows() if row.cell not in cells])

    def add(self, row: Row, order: Sequence[str]) -> None:
        """Add to what a cell came to, and write the page anew."""
        by_cell = {one.cell: one for one in self.rows()}
        before = by_cell.get(row.cell)
        together = before is not None and before.messages == row.messages and not row.skipped
        by_cell[row.cell] = before.plus(row) if before is not None and together else row
        self._keep([by_cell[name] for name in order if name in by_cell])

    def _keep(self, rows: Sequence[Row]) -> None:
        kept: list[dict[str, Any]] = [dataclasses.asdict(one) for one in rows]
        self._kept.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        rules = "".join(f"{n}. {words}\n" for n, words in RULES.items() if n != TOLD_ALONE)
        head = HEAD.replace("@RULES@\n", f"{rules}\n")
        self._page.write_text(head + RELATED + NEWEST + _markdown(rows), encoding="utf-8")


def _markdown(rows: Sequence[Row]) -> str:
    lines = [
        "| cell | seeds | tasks | records | faults | seconds | verdict | controls | at |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for row in rows:
        if row.skipped:
            lines.append(f"| `{row.cell}` | 0 | 0 | 0 | 0 | 0 | skipped: {row.skipped} | | |")
            continue
        verdict = "holds" if not row.violations else "**does not hold**"
        controls = "; ".join(
            f"`{kind}`: " + (f"noticed ({rules})" if rules else "**not noticed**")
            for kind, rules in row.controls.items()
        )
        lines.append(
            f"| `{row.cell}` | {len(row.seeds)} | {row.tasks:,} | {row.records:,} | {row.faults} "
            f"| {row.seconds:.0f} | {verdict} | {controls} | {', '.join(row.commits)} |"
        )
        notes += [f"- `{row.cell}`, seed {of}: {what}" for of, what in row.violations.items()]
        notes += [f"- `{row.cell}`: {words}" for words in row.words]
    text = "\n".join(lines) + "\n"
    return text + ("\n" + "\n".join(notes) + "\n" if notes else "")
