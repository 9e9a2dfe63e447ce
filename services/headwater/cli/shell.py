"""What every command shares: its options, how it prints, asks and refuses."""

from __future__ import annotations

import contextlib
import difflib
import getpass
import json
import logging
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, TextIO

import rich.console
import rich.table
import rich.text
import typer
import typer.core

from headwater.errors import HeadwaterError

FAILED = 1
WRONG_USAGE = 2
_GAP = 2
_CELL_MIN = 5
_TEXT_MIN = 16
_WIDTH_MIN = 40


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="How to print results.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be written, write nothing.")
]
AppOption = Annotated[
    str,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        help="The app; else HEADWATER_APP, else [tool.headwater] app in ./pyproject.toml.",
    ),
]


class RefusedError(HeadwaterError):
    """A command cannot do what was asked; its message is the one line the user sees.

    Args:
        message: What happened, to what, and what to do.
        status: Exit status: 1 failed, 2 wrong usage.
    """

    def __init__(self, message: str, *, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Command(typer.core.TyperCommand):
    """A command one of whose arguments may be given several times; its help says so in a sign."""

    def get_help(self, ctx: Any) -> str:
        """Return the help, each column where it was."""
        return super().get_help(ctx).replace("<list[str]>", "<str>...   ")


def out() -> rich.console.Console:
    """Return the console of results; 80 columns wide in a pipe, and plain under `NO_COLOR`."""
    return rich.console.Console(file=sys.stdout, highlight=False, emoji=False)


def note(text: str) -> None:
    """Tell the person something that is no result, on stderr."""
    print(text, file=sys.stderr)


def wrapped(text: str, file: TextIO, *, indent: int = 2) -> str:
    """Return a line broken between words where somebody reads it: on a terminal, or under `COLUMNS`.

    In a pipe it stays one line, which programs look for.

    Args:
        text: Without line breaks.
        file: Where it will be printed.
        indent: By how many columns lines after the first are set in.
    """
    if not (file.isatty() or os.environ.get("COLUMNS")):
        return text
    return textwrap.fill(
        text,
        max(rich.console.Console(file=file).width, _WIDTH_MIN),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def now_ms() -> int:
    """Return the time in milliseconds since 1970, against which ages are measured."""
    return time.time_ns() // 1_000_000


def note_more(shown: int, limit: int) -> None:
    """Say that there may be more than a list shows, if it is full."""
    if shown >= limit:
        note(f"these are the newest {shown}: there may be more, see --limit")


def user() -> str:
    """Return who types here: a name, or the number of a user for whom the machine has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def hush() -> None:
    """Keep a client's chatter about retries off the screen; what fails in the end is an error."""
    logging.getLogger("headwater.log").setLevel(logging.CRITICAL)


def document(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False, default=str))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    keep: Sequence[str] = (),
    spare: Sequence[str] = (),
    text: str = "",
) -> None:
    """Print a table that fits the terminal, or 80 columns in a pipe.

    Args:
        columns: Headings.
        rows: Cells.
        keep: Headings of columns that are never cut, for what people copy.
        spare: Headings of columns that are left out where not all of the others fit beside them.
        text: Heading of the last column if it is of long texts: left out where too little of them would
            fit beside the others.
    """
    console = out()
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = _widths(columns, cells)
    left_out = {*spare} if sum(widths) + len(widths) - 1 > console.width else set()
    if text and sum(widths[:-1]) + len(widths) - 1 + min(widths[-1], _TEXT_MIN) > console.width:
        left_out.add(text)
    if left_out:
        shown_at = [number for number, name in enumerate(columns) if name not in left_out]
        columns = [columns[number] for number in shown_at]
        cells = [[row[number] for number in shown_at] for row in cells]
        widths = _widths(columns, cells)
    between = len(widths) - 1
    gap = _GAP if sum(widths) + _GAP * between <= console.width else 1
    loose = [number for number, name in enumerate(columns) if name not in keep]
    short = sum(min(width, _CELL_MIN if at in loose else width) for at, width in enumerate(widths))
    # Where what is kept leaves no room anyhow, an age that is cut would be cut for nothing.
    least = _CELL_MIN if short + gap * between <= console.width else _TEXT_MIN
    while sum(widths) + gap * between > console.width and loose:
        widest = max(loose, key=lambda number: widths[number])
        if widths[widest] <= least:
            break
        widths[widest] -= 1
    shown = rich.table.Table(
        box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold", show_edge=False
    )
    for name, width in zip(columns, widths, strict=True):
        shown.add_column(name, width=width, no_wrap=True, overflow="ellipsis")
    for row in cells:
        shown.add_row(*(rich.text.Text(cell) for cell in row))
    console.width = max(console.width, sum(widths) + gap * between)  # what is kept stays whole
    console.print(shown)


def _widths(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(columns, *cells, strict=True)]


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed or repeated.

    Raises:
        RefusedError: The person said no, or there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError(f"{question} Nobody can be asked here: add --yes", status=WRONG_USAGE)
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        note("")  # the cursor stands behind the question
        raise
    if not agreed:
        raise RefusedError("nothing was done")


@contextlib.contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show that something is under way, on a terminal; nothing in a pipe. What it yields says more."""
    console = rich.console.Console(file=sys.stderr, emoji=False)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status(text) as status:
        yield status.update


def one_of(kind: str, name: str, known: Iterable[str], *, lists: str = "") -> str:
    """Return a name if it is known.

    Args:
        kind: What it names.
        name: As it was given.
        known: All there are.
        lists: The command that lists them, where they are too many for a message.

    Raises:
        RefusedError: It is not; the message names the nearest one, and all or what lists them.
    """
    names = sorted(known)
    if name in names:
        return name
    near = nearest(name, names)
    if lists:
        hint = f": did you mean {near!r}?" if near else ";"
        raise RefusedError(f"no {kind} {name!r}{hint} {lists} names all", status=WRONG_USAGE)
    hint = f"did you mean {near!r}? There" if near else "there"
    there = ", ".join(names) if names else "none"
    raise RefusedError(f"no {kind} {name!r}: {hint} are: {there}", status=WRONG_USAGE)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the name that was probably meant, by its last part or whole; empty if none is near."""
    lasts: dict[str, str] = {}
    for one in names:
        lasts.setdefault(one.rpartition(".")[2].lower(), one)
        lasts.setdefault(one.lower(), one)
    near = difflib.get_close_matches(name.lower(), lasts, n=1)
    return lasts[near[0]] if near else ""


def count(number: int, noun: str) -> str:
    """Write how many there are of something: `1 step`, `2 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def at(time_ms: int) -> str:
    """Write milliseconds since 1970 as a time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(int(time_ms) / 1000))


def money(usd_nano: int) -> str:
    """Write billionths of a US dollar as dollars, with the digits that small sums need."""
    usd = usd_nano / 1e9
    return f"${usd:.2f}" if usd >= 1 or not usd else f"${usd:.6f}".rstrip("0")


def duration(ms: int) -> str:
    """Write milliseconds as a person would say them."""
    if ms < 1_000:  # noqa: PLR2004 - milliseconds in a second
        return f"{ms} ms"
    seconds = ms / 1000
    if seconds < 60:  # noqa: PLR2004 - seconds in a minute
        return f"{seconds:.1f} s"
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds_left} s"
