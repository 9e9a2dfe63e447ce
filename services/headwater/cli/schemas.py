"""`headwater schemas`: the Avro schemas that an app's types become, and whether they may change."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from headwater import backing, namespace, payloads
from headwater.cli import discovery, shell, topics
from headwater.cli import histories as journaled
from headwater.contracts import compatibility
from headwater.contracts.shape import Shape
from headwater.contracts.topics import Names
from headwater.sdk.app import App
from headwater.settings import Settings

app = typer.Typer(no_args_is_help=True, help="See, export, check and register schemas.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A schema, and whose it is: headwater's own (`shipped`) or the app's."""

    name: str
    owner: str
    fingerprint: str
    schema: dict[str, Any]


@app.command("list")
def list_(app: shell.AppOption = "", output: shell.Output = shell.Format.TABLE) -> None:
    """List the app's schemas, and headwater's own."""
    found = [*_known(app)]
    if output is shell.Format.JSON:
        shell.document([dataclasses.asdict(one) for one in found])
        return
    shell.table(
        ["schema", "whose", "fingerprint"],
        [(one.name, one.owner, one.fingerprint) for one in found],
        keep=["schema", "fingerprint"],
    )


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `schemas list` names it.")],
    app: shell.AppOption = "",
) -> None:
    """Print one schema, as JSON."""
    found = {one.name: one for one in _known(app)}
    shell.document(
        found[shell.one_of("schema", name, found, lists="`headwater schemas list`")].schema
    )


@app.command()
def export(
    directory: Annotated[
        pathlib.Path, typer.Argument(metavar="DIRECTORY", help="Where the files go.")
    ],
    app: shell.AppOption = "",
    shipped: Annotated[
        bool, typer.Option("--shipped", help="headwater's own schemas instead of the app's.")
    ] = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Write schemas as DIRECTORY/<name>/v<n>.avsc. A changed one becomes the next version."""
    written = []
    for one in _named("shipped", namespace.shipped()) if shipped else _app(app):
        path = next_version(directory / file_name(one.name), one.schema)
        if path is None:
            continue
        written.append(str(path))
        if not dry_run:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text_of(one.schema), encoding="utf-8")
    if output is shell.Format.JSON:
        shell.document({"files": written, "written": not dry_run})
        return
    for name in written:
        print(f"{'would write' if dry_run else 'wrote'} {name}")
    if not written:
        shell.note("every schema is there already")


@app.command()
def check(
    app: shell.AppOption = "",
    against: Annotated[
        pathlib.Path | None,
        typer.Option("--against", help="A directory of exports, instead of the cluster's schemas."),
    ] = None,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Check the app's types against the versions before them.

    What would break readers is refused. Against a cluster, the journals of runs that are open or have
    failed count as well.
    """
    shell.hush()
    loaded = discovery.load(app)
    old = _exported(against) if against is not None else _recorded(loaded, Settings.of())
    found = compatibility.broken(topics.schemas_of(loaded), old)
    unread, runs = ([], 0) if against is not None else _journaled(app)
    if output is shell.Format.JSON:
        broken = [{**dataclasses.asdict(one), "says": str(one)} for one in found]
        shell.document(broken + [{**dataclasses.asdict(one), "says": str(one)} for one in unread])
    if unread:
        more = f"; and {len(unread) - 1} more" if len(unread) > 1 else ""
        raise shell.RefusedError(
            f"{unread[0]}{more}: keep what they were written with readable until those runs have ended"
        )
    if found:
        raise shell.RefusedError(compatibility.refusal(found))
    if output is shell.Format.TABLE:
        kept = "" if against is not None else f", and what {runs} open runs have in their journals"
        print(
            f"{len(loaded.shapes())} schemas read, and are read by, {len(old)} versions before "
            f"them{kept}"
        )


@app.command()
def register(
    app: shell.AppOption = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Register the schemas of tasks and outcomes. The registry's newest are read first."""
    loaded, settings = discovery.load(app), Settings.of()
    registry = backing.registry_of(settings.registry)
    if registry is None:
        raise shell.RefusedError(
            "which registry? Set HEADWATER_REGISTRY__URL", status=shell.WRONG_USAGE
        )
    wanted = [*_subjects(loaded, settings)]
    rows: list[dict[str, Any]] = []
    with registry:
        for subject, shape in wanted:
            newest = registry.latest(subject)
            old = [] if newest is None else [json.loads(newest)]
            if found := compatibility.broken([shape.schema], old):
                raise shell.RefusedError(f"{subject}: {compatibility.refusal(found)}")
        if not dry_run:
            shell.confirm(f"Register {len(wanted)} schemas? They stay there.", yes=yes)
        for subject, shape in wanted:
            number = None if dry_run else registry.register(subject, shape.schema)
            rows.append({"subject": subject, "id": number})
    if output is shell.Format.JSON:
        shell.document(rows)
    else:
        shell.table(["subject", "id"], [tuple(row.values()) for row in rows], keep=["subject"])


def file_name(record: str) -> str:
    """Return a record name as a directory: `RunEvent` is `run-event`."""
    return (
        re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", record.rpartition(".")[2]).lower().replace("_", "-")
    )


def text_of(schema: dict[str, Any]) -> str:
    """Return a schema as its file has it."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def next_version(home: pathlib.Path, schema: dict[str, Any]) -> pathlib.Path | None:
    """Return the file that a schema goes into, or `None` if the newest is the same."""
    versions = sorted(
        int(path.stem[1:]) for path in home.glob("v*.avsc") if path.stem[1:].isdecimal()
    )
    if not versions:
        return home / "v1.avsc"
    newest = home / f"v{versions[-1]}.avsc"
    if json.loads(newest.read_text(encoding="utf-8")) == json.loads(text_of(schema)):
        return None
    return home / f"v{versions[-1] + 1}.avsc"


def _known(option: str) -> Iterator[Named]:
    yield from _app(option)
    yield from _named("shipped", namespace.shipped())


def _app(option: str) -> Iterator[Named]:
    return _named("app", discovery.load(option).shapes().values())


def _named(owner: str, shapes: Iterable[Shape[Any]]) -> Iterator[Named]:
    named = {compatibility.full_name(shape.schema): shape for shape in shapes}
    for name, shape in sorted(named.items()):
        yield Named(
            name=name, owner=owner, fingerprint=shape.fingerprint.hex(), schema=shape.schema
        )


def _exported(directory: pathlib.Path) -> list[dict[str, Any]]:
    files = sorted(directory.glob("*/v*.avsc"))
    if not files:
        raise shell.RefusedError(
            f"--against {directory}: there is no <name>/v<n>.avsc", status=shell.WRONG_USAGE
        )
    return [json.loads(path.read_text(encoding="utf-8")) for path in files]


def _recorded(loaded: App, settings: Settings) -> list[dict[str, Any]]:
    log = topics.log_of(settings)
    try:
        platform = topics.platform_of(loaded, log, settings)
        recorded = namespace.recorded_schemas(platform)
        mine = loaded.shapes()
        return [json.loads(one.schema) for one in recorded if one.name in mine]
    finally:
        log.close()


def _journaled(option: str) -> tuple[list[payloads.Unread], int]:
    """Return what today's types cannot read of open runs' journals, and how many runs there are."""
    with journaled.reading(option) as platform, shell.progress("reading journals") as told:
        reader = payloads.Payloads(platform.app, platform.schemas)
        count = 0
        for history in journaled.journals(platform, "", 1_000_000):
            reader.take(history)
            count += 1
            told(f"{count} journals read")
    return reader.unread(), count


def _subjects(loaded: App, settings: Settings) -> Iterator[tuple[str, Shape[Any]]]:
    """Yield subjects: the topic's for commands, topic and record for events, which have many types."""
    names = Names(settings.namespace or loaded.namespace)
    for name, agent in sorted(loaded.agents.items()):
        yield f"{names.cmd(name)}-value", agent.input
        yield f"{names.evt(name)}-{compatibility.full_name(agent.output.schema)}", agent.output
