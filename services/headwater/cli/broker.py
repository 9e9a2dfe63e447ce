"""`headwater broker`: a local Kafka for laptops and tests."""

from __future__ import annotations

import os
import pathlib
import re
from typing import Annotated

import typer

from headwater.cli import shell
from headwater.log.broker import Broker, Running, lent

app = typer.Typer(no_args_is_help=True, help="A local Kafka for laptops and tests.")

Directory = Annotated[
    pathlib.Path | None,
    typer.Option("--dir", help="Where its data and log are; by default in the user's cache."),
]


@app.callback()
def broker() -> None:
    """A local Kafka for laptops and tests."""


@app.command()
def start(
    directory: Directory = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_534, help="Where to listen.")] = None,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Start it, or find it running; it keeps its data between starts."""
    found = _broker(directory)
    with shell.progress("starting Kafka (the first time brings its jars)"):
        found.start(port)
    running = found.status()
    if running is None and (named := os.environ.get("HEADWATER_KAFKA__BOOTSTRAP", "")):
        raise shell.RefusedError(
            f"HEADWATER_KAFKA__BOOTSTRAP names {named}, where nothing answers, so no other is started: "
            "unset it to start a local Kafka here"
        )
    if running is None:
        raise shell.RefusedError(f"the broker ended as soon as it started: see {found.log_path}")
    _tell(running, output)
    _warn(running, port)


@app.command()
def stop(directory: Directory = None) -> None:
    """Stop it; its data stay."""
    if _broker(directory).stop():
        print("stopped")
    else:
        shell.note("no local broker runs here")


@app.command()
def status(directory: Directory = None, output: shell.Output = shell.Format.TABLE) -> None:
    """Say whether it runs, and where."""
    running = _broker(directory).status()
    if running is None:
        raise shell.RefusedError("no local broker runs here: `headwater broker start` starts one")
    _tell(running, output)


def _warn(running: Running, port: int | None) -> None:
    """Say what a person who chose a port should know of it."""
    if port is None:
        return
    if not running.bootstrap.endswith(f":{port}"):
        shell.note(f"it runs there already, so --port {port} changes nothing: stop it first")
    elif (found := lent(port)) is not None:
        shell.note(
            f"port {port} is among those that the kernel lends to clients ({found[0]} to {found[1]}): one "
            f"may hold it when the broker comes back; a port below {found[0]} is never lent"
        )


def _broker(directory: pathlib.Path | None) -> Broker:
    named = os.environ.get("HEADWATER_KAFKA__BOOTSTRAP", "")
    if named and not re.fullmatch(r"[^:,]\S*:\d+", named.split(",", maxsplit=1)[0]):
        raise shell.RefusedError(
            f"HEADWATER_KAFKA__BOOTSTRAP {named!r} is not host:port", status=shell.WRONG_USAGE
        )
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    return Broker(
        directory or cache / "headwater" / "broker",
        cache=cache / "headwater",
        external=named,
    )


def _tell(running: Running, output: shell.Format) -> None:
    if output is shell.Format.JSON:
        shell.document({"bootstrap": running.bootstrap, "kind": running.kind, "pid": running.pid})
        return
    print(f"{running.bootstrap} ({running.kind}{f', pid {running.pid}' if running.pid else ''})")
    shell.note(f"export HEADWATER_KAFKA__BOOTSTRAP={running.bootstrap}")
