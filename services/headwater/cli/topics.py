"""`headwater topics`: what a cluster lacks of what the app needs, and giving it that."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from headwater import namespace, provisioning
from headwater.assembly import Parts, Platform
from headwater.cli import discovery, shell
from headwater.contracts import compatibility
from headwater.core.versions import is_later
from headwater.durable import confine
from headwater.log.kafka import KafkaLog
from headwater.provisioning import Action, Change
from headwater.sdk.app import App
from headwater.settings import Settings

app = typer.Typer(no_args_is_help=True, help="See and make the topics an app needs.")

Partitions = Annotated[
    int,
    typer.Option("--partitions", min=0, help="Of new topics; else HEADWATER_KAFKA__PARTITIONS."),
]


@app.command("plan")
def plan_(
    app: shell.AppOption = "",
    partitions: Partitions = 0,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Show what the cluster lacks; change nothing."""
    with opened(app) as (platform, settings):
        changes = _changes(platform, settings, partitions)
        _refuse_strangers(platform, changes)
        _show(changes, output)
        if any(change.action is Action.REFUSED for change in changes):
            raise shell.RefusedError("some of it must be done by hand")
        _refuse_breaks(platform, changes)
        _note_version(platform, changes, planned=True)


@app.command("apply")
def apply_(
    app: shell.AppOption = "",
    partitions: Partitions = 0,
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Make what the cluster lacks. Writes down the app, its schemas and its shards too."""
    with opened(app) as (platform, settings):
        cluster = provisioning.connect(settings.kafka)
        changes = _changes(platform, settings, partitions)
        _refuse_strangers(platform, changes)
        _show(changes, output)
        refused = [change for change in changes if change.action is Action.REFUSED]
        if refused:
            raise shell.RefusedError(f"{refused[0].name}: {refused[0].detail}; nothing was done")
        _refuse_breaks(platform, changes)
        _note_version(platform, changes)
        if dry_run:
            return
        grown = [change for change in changes if change.action is Action.GROW]
        if grown:
            shell.confirm(f"{len(grown)} topics grow, which cannot be undone. Go on?", yes=yes)
        with shell.progress(f"applying {len(changes)} changes"):
            for change in changes:
                provisioning.apply(cluster, change)
            asyncio.run(namespace.publish(platform))
    own = platform.app
    shell.note(
        f"{len(changes)} changes made; {platform.names.namespace} runs {own.name} {own.version}"
    )


@app.command("skip-expired")
def skip_expired(
    app: shell.AppOption = "",
    yes: shell.Yes = False,
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Have groups go on that retention has overtaken. They start where their topics begin."""
    with opened(app) as (platform, settings):
        cluster = provisioning.connect(settings.kafka)
        with shell.progress(f"asking {settings.kafka.bootstrap}"):
            found = provisioning.expired(cluster, platform.layout.groups())
    if output is shell.Format.JSON:
        shell.document([dataclasses.asdict(one) for one in found])
    elif found:
        rows = [
            (one.group, f"{one.topic}[{one.partition}]", str(one.offset), str(one.beginning))
            for one in found
        ]
        shell.table(["group", "partition", "from", "to"], rows, keep=["group", "partition"])
    if not found:
        shell.note("no group has an offset below where its topic begins")
        return
    if dry_run:
        return
    skipped = sum(one.beginning - one.offset for one in found)
    shell.confirm(
        f"{skipped} offsets are skipped: tasks among them are lost, marks that end transactions are "
        "nothing to lose. Go on?",
        yes=yes,
    )
    for group in dict.fromkeys(one.group for one in found):
        cluster.skip(group, [one for one in found if one.group == group])
    shell.note(f"{skipped} offsets skipped; start the processes")


def _refuse_strangers(platform: Platform, changes: list[Change]) -> None:
    """Refuse a namespace that another app runs in: none of its processes would start any more."""
    made = platform.names.ctl("app")
    if any(change.action is Action.CREATE and change.name == made for change in changes):
        return
    there, name = namespace.app_record(platform), platform.app.name
    if there is not None and there.name != name:
        raise shell.RefusedError(
            f"namespace {platform.names.namespace} runs app {there.name!r}, and this is {name!r}: set "
            "HEADWATER_NAMESPACE to another, or load that app; nothing was done"
        )


def _refuse_breaks(platform: Platform, changes: list[Change]) -> None:
    """Refuse an app whose types cannot read, or be read by, the versions that wrote before it."""
    made = platform.names.ctl("schemas")
    if any(change.action is Action.CREATE and change.name == made for change in changes):
        return
    old = [json.loads(one.schema) for one in namespace.recorded_schemas(platform)]
    found = compatibility.broken(schemas_of(platform.app), old)
    if found:
        raise shell.RefusedError(f"{compatibility.refusal(found)}; nothing was done")


def _note_version(platform: Platform, changes: list[Change], *, planned: bool = False) -> None:
    """Say what else stands between this version and its processes, where topics alone do not."""
    made = platform.names.ctl("app")
    if any(change.action is Action.CREATE and change.name == made for change in changes):
        return
    own, there = platform.app.version, namespace.app_record(platform)
    for said in namespace.version_records(platform):
        if said.state == "withdrawn" and said.version == own:
            shell.note(f"version {own} was taken back: no process of it joins")
        if said.state == "final" and is_later(said.version, own):
            shell.note(f"version {said.version} is final: no process of {own} joins")
    if planned and (there is None or there.version != own):
        last = "nothing" if there is None else there.version
        shell.note(
            f"{last} was applied last: `headwater topics apply` writes down {own} and its schemas"
        )


@contextlib.contextmanager
def opened(option: str) -> Iterator[tuple[Platform, Settings]]:
    """Yield the app that a command names on the cluster of its settings, and close the log after it."""
    shell.hush()
    loaded, settings = discovery.load(option), Settings.of()
    log = log_of(settings)
    try:
        yield platform_of(loaded, log, settings), settings
    finally:
        log.close()


def log_of(settings: Settings) -> KafkaLog:
    """Return the cluster's log, once a broker has answered.

    Raises:
        SettingsError: None does; the client itself would go on trying without a word.
    """
    provisioning.connect(settings.kafka).brokers()
    return KafkaLog(provisioning.config_of(settings.kafka))


def platform_of(loaded: App, log: KafkaLog, settings: Settings) -> Platform:
    """Return the app on a cluster, to ask what it needs."""
    parts = Parts(clock=confine.wall_ms, instance=settings.instance)
    return Platform(loaded, log, parts, namespace=settings.namespace or None)


def schemas_of(loaded: App) -> list[dict[str, Any]]:
    """Return every schema that crosses a topic of the app's."""
    return [shape.schema for shape in loaded.shapes().values()]


def _changes(platform: Platform, settings: Settings, partitions: int) -> list[Change]:
    count = partitions or settings.kafka.partitions
    with shell.progress(f"asking {settings.kafka.bootstrap}"):
        return provisioning.plan(
            provisioning.connect(settings.kafka),
            platform.layout.needs(partitions=count),
            platform.layout.groups(),
            replication=settings.kafka.replication,
        )


def _show(changes: list[Change], output: shell.Format) -> None:
    if output is shell.Format.JSON:
        shell.document([dataclasses.asdict(change) for change in changes])
        return
    if not changes:
        shell.note("the cluster has everything")
        return
    shell.table(
        ["do", "what", "how"],
        [(change.action.value, change.name, change.detail) for change in changes],
        keep=["do", "what"],
    )
