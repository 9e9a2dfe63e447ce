"""`headwater runs verify` and `runs export`: journals against today's code, and as files.

They read the state topics of a cluster, and need the app's code; `headwater dev` keeps its log in its
own memory, so it has no journals for others to read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from headwater import backing, histories, namespace
from headwater.assembly import Parts, Platform
from headwater.cli import discovery, shell, topics
from headwater.core.messages import RunId
from headwater.durable import confine
from headwater.histories import History, Verdict
from headwater.runs.rows import Run
from headwater.settings import Settings

_MENDS = {
    "different": "Keep their way with ctx.patched(...)",
    "unreadable": "Keep their agent and what they were written with readable",
}

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run id.")]


def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run id.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="Every run that is open or failed.")] = False,
    agent: Annotated[str, typer.Option(help="With --all: only of this agent.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="With --all: at most so many.")] = 100_000,
    app: shell.AppOption = "",
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Replay journals against today's code, making no call. Exit 1 if one differs."""
    if bool(run) == all_:
        raise shell.RefusedError("name a run, or say --all", status=shell.WRONG_USAGE)
    confine.ensure_hash_seed()
    with reading(app) as platform, _silent(), shell.progress("replaying") as told:
        chosen = journals(platform, agent, limit) if all_ else iter([_journal(platform, run)])
        found: list[Verdict] = []
        for history in chosen:
            found.append(histories.verify(platform.app, history))
            told(f"{len(found)} replayed")
    bad = [verdict for verdict in found if verdict.state != "equal"]
    if output is shell.Format.JSON:
        shell.document([dataclasses.asdict(verdict) for verdict in found])
    elif bad:
        shell.table(
            ["run", "verdict", "says"],
            [(verdict.run, verdict.state, verdict.says) for verdict in bad],
            keep=["run"],
        )
    if bad:
        raise shell.RefusedError(
            f"{len(bad)} of {len(found)} runs would be held by this code, first {bad[0].run}: "
            f"{bad[0].says}. {_MENDS[bad[0].state]}, or let them end first"
        )
    if output is shell.Format.TABLE:
        entries = sum(verdict.entries for verdict in found)
        goes = "1 run goes" if len(found) == 1 else f"{len(found)} runs go"
        print(f"{goes} on with this code; {entries} entries replayed")


def export(run: RunArgument, app: shell.AppOption = "") -> None:
    """Write a run's journal to stdout, a line an entry.

    `headwater.testing.replay` reads it. It holds the run's values as they are: treat the file as you
    treat the run's data.
    """
    with reading(app) as platform:
        for line in histories.dump(_journal(platform, run)):
            sys.stdout.write(line + "\n")


def _journal(platform: Platform, run: str) -> History:
    """Return one run's journal.

    Raises:
        RefusedError: There is none.
    """
    place = RunId.parse(run)
    if place is None:
        raise shell.RefusedError(
            f"{run!r} is no run id, which is AGENT.PARTITION.TASK: `headwater runs show` says it for "
            "a task",
            status=shell.WRONG_USAGE,
        )
    shell.one_of("agent", place.agent, platform.app.agents)
    for table in histories.tables(platform, place.agent, place.partition):
        history = histories.of(platform, table, run)
        if history is not None:
            return history
    raise shell.RefusedError(
        f"{run} has no journal: only runs that are open or have failed keep theirs"
    )


def journals(platform: Platform, agent: str, limit: int) -> Iterator[History]:
    """Yield the journals of runs that are open or have failed."""
    agents = [shell.one_of("agent", agent, platform.app.agents)] if agent else platform.app.agents
    left = limit
    for name in agents:
        for table in histories.tables(platform, name):
            for row in table.scan(Run):
                history = histories.of(platform, table, row.run)
                if history is None or row.state == "closing":
                    continue
                if not left:
                    return
                left -= 1
                yield history


@contextlib.contextmanager
def reading(option: str) -> Iterator[Platform]:
    """Return the app on its cluster, with every schema that others wrote with."""
    shell.hush()
    loaded, settings = discovery.load(option), Settings.of()
    log = topics.log_of(settings)
    try:
        name = settings.namespace or loaded.namespace
        blobs = backing.blobs_of(settings.blobs, namespace=name)
        parts = Parts(clock=confine.wall_ms, instance=settings.instance, blobs=blobs)
        platform = Platform(loaded, log, parts, namespace=name)
        registry = backing.registry_of(settings.registry)
        if registry is not None:
            platform.schemas.connect(registry)
        for one in namespace.recorded_schemas(platform):
            platform.schemas.add(one.schema)
        yield platform
    finally:
        log.close()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Leave out what the replayed functions and their journal log; the verdict says it."""
    logger = logging.getLogger("headwater.runs.journal")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
