"""The command line: `headwater`, one noun a module."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from headwater.cli import (
    approvals,
    blobs,
    broker,
    dev,
    dlq,
    doctor,
    histories,
    init,
    quarantine,
    runs,
    schemas,
    shell,
    tasks,
    topics,
    upgrade,
)
from headwater.cli import run as running
from headwater.errors import HeadwaterError
from headwater_program import STOPPED

_HELP = "Fleets of LLM agents on Apache Kafka, for people who must prove what their agents did."

_CHOICE = re.compile(r"'(?P<name>[^']*)' is not one of (?P<choices>'.*')")

app = typer.Typer(
    name="headwater",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.command()(init.init)
app.command()(dev.dev)
app.command()(running.run)
app.command()(doctor.doctor)
app.add_typer(broker.app, name="broker")
app.add_typer(tasks.app, name="tasks")
app.add_typer(runs.app, name="runs")
app.add_typer(approvals.app, name="approvals")
app.add_typer(topics.app, name="topics")
app.add_typer(schemas.app, name="schemas")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(blobs.app, name="blobs")
app.add_typer(upgrade.app, name="upgrade")
app.add_typer(dlq.app, name="dlq")
runs.app.command()(histories.verify)
runs.app.command()(histories.export)


def _version(asked: bool) -> None:
    if asked:
        print(f"headwater {importlib.metadata.version('headwater')}")
        raise typer.Exit


@app.callback()
def headwater(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="Show a traceback where something fails; anywhere in the line."
        ),
    ] = False,
) -> None:
    """Take the options that stand before the command."""


headwater.__doc__ = _HELP


def main(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: Without the program's name.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped by a Ctrl-C.
    """
    debug = "--debug" in arguments
    line = [argument for argument in arguments if argument != "--debug"]
    try:
        status = app(line, prog_name="headwater", standalone_mode=False)
    except TyperException as error:
        return _usage(error, debug=debug)
    except shell.RefusedError as error:
        return _fail(error, str(error), error.status, debug=debug)
    except HeadwaterError as error:
        return _fail(error, str(error), shell.FAILED, debug=debug)
    except typer.Abort as error:  # a question was left without an answer
        interrupted = isinstance(error.__context__, KeyboardInterrupt)
        return _fail(error, "stopped", STOPPED if interrupted else shell.FAILED, debug=debug)
    except KeyboardInterrupt as error:
        return _fail(error, "stopped", STOPPED, debug=debug)
    except BrokenPipeError:
        return shell.FAILED  # whoever read our output has gone; nobody is left to tell
    except OSError as error:
        return _fail(error, _place(error), shell.FAILED, debug=debug)
    except Exception as error:  # noqa: BLE001 - the user sees one line, and the rest with --debug
        hint = "" if debug else "; --debug shows where"
        return _fail(error, f"{type(error).__name__}: {error}{hint}", shell.FAILED, debug=debug)
    if status == STOPPED:  # typer's own word for a Ctrl-C, without a line
        shell.note("headwater: stopped")
    return status if isinstance(status, int) else 0


def run() -> None:
    """Run the process's command line and exit with its status."""
    sys.exit(main(sys.argv[1:]))


def _usage(error: TyperException, *, debug: bool) -> int:
    words = error.format_message().replace("Value error, ", "")  # pydantic's, of no use here
    if words.startswith("Usage:"):  # nothing was asked: the help, which keeps its lines
        shell.note(words)
        return error.exit_code
    words = _guessed(words)
    context = getattr(error, "ctx", None)
    hint = f" See `{context.command_path} --help`" if context is not None else ""
    return _fail(
        error,
        words.rstrip(".") + ("" if words.endswith("?") else ".") + hint,
        error.exit_code,
        debug=debug,
    )


def _guessed(words: str) -> str:
    """Add the choice that was probably meant, where one was given that is none."""
    given = _CHOICE.search(words)
    if given is None:
        return words
    near = shell.nearest(given["name"], re.findall(r"'([^']*)'", given["choices"]))
    return f"{words.rstrip('.')}: did you mean {near!r}?" if near else words


def _place(error: OSError) -> str:
    """Say which file or directory is not as it should be; of what has no name, what it is."""
    if error.filename is None:
        return f"{type(error).__name__}: {error}; --debug shows where"
    return f"{error.filename}: {error.strerror}: is it there, and may {shell.user()} use it?"


def _fail(error: BaseException, words: str, status: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if words:
        shell.note(shell.wrapped(f"headwater: {' '.join(words.split())}", sys.stderr))
    return status


if __name__ == "__main__":
    run()
