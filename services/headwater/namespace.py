"""A namespace: what all its processes share, in the log's control topics."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from headwater.admission import shards
from headwater.assembly import ROWS, Parts, Platform
from headwater.contracts import compatibility, messages
from headwater.contracts.ctl import (
    AppRecord,
    MemberRecord,
    SchemaRecord,
    ShardTable,
    VersionRecord,
)
from headwater.contracts.derive import shape_of
from headwater.contracts.records import Draft, Partition
from headwater.contracts.shape import Shape
from headwater.core.versions import in_order, is_later
from headwater.durable import confine
from headwater.errors import SettingsError
from headwater.log.local import LocalLog
from headwater.log.port import Log
from headwater.sdk.app import App

logger = logging.getLogger(__name__)


async def local(app: App, *, partitions: int = 4) -> LocalLog:
    """Return a log in memory with everything an app needs."""
    log = LocalLog(clock=confine.wall_ms)
    platform = Platform(app, log, Parts(clock=confine.wall_ms))
    for need in platform.layout.needs(partitions=partitions, coordinators=partitions):
        log.create(
            need.name,
            partitions=need.partitions,
            compacted=need.compacted,
            max_bytes=need.max_bytes,
        )
    for group, topics in platform.layout.groups().items():
        log.begin_group(group, topics)
    await publish(platform)
    return log


async def publish(platform: Platform) -> None:
    """Write what every process reads: the app, its schemas, the shards."""
    names, app, codec = platform.names, platform.app, platform.codec
    record = AppRecord(name=app.name, version=app.version, digest=app.digest())
    drafts = [Draft(topic=names.ctl("app"), key=b"app", value=codec.encode(record))]
    own = {compatibility.full_name(shape.schema): shape for shape in shipped()}
    for name, shape in {**own, **app.shapes()}.items():
        schema = SchemaRecord(name=name, schema=json.dumps(shape.schema))
        drafts.append(
            Draft(topic=names.ctl("schemas"), key=shape.fingerprint, value=codec.encode(schema))
        )
    drafts += [
        Draft(topic=names.ctl("shards"), key=topic.encode(), value=codec.encode(table))
        for topic, table in platform.shards.items()
    ]
    for draft in drafts:
        await platform.log.append(draft)


def shipped() -> list[Shape[Any]]:
    """Return the schemas of what headwater itself writes: messages, and the rows of its deciders.

    They are recorded as an app's are, because another version of headwater reads what this one wrote.
    """
    return [shape_of(kind) for kind in (*messages.SHIPPED, *ROWS)]


def check(platform: Platform) -> None:
    """Compare this process's app with the namespace's, and learn the schemas of others.

    Another app has another name, or the same version and other types or effects. Another version of
    the same app may join: that is what a rolling upgrade is.

    Raises:
        SettingsError: The namespace runs another app, or one whose final version is later, or has
            taken this version back; or `topics apply` has not run.
    """
    names, codec = platform.names, platform.codec
    found: dict[type, list[Any]] = {
        AppRecord: [], VersionRecord: [], SchemaRecord: [], ShardTable: []
    }  # fmt: skip
    for name in ("app", "schemas", "shards"):
        for value in _newest(platform.log, names.ctl(name)).values():
            message = codec.decode(value)
            found[type(message)].append(message)
    if not found[AppRecord]:
        raise SettingsError(f"{names.ctl('app')} is empty: run `headwater topics apply`")
    _check_app(platform, found[AppRecord][0])
    _check_version(platform.app.version, found[VersionRecord])
    for schema in found[SchemaRecord]:
        platform.schemas.add(schema.schema)
    for table in found[ShardTable]:
        partitions = platform.log.partitions(table.topic)
        if table != dataclasses.replace(
            shards.table(table.topic, partitions), version=table.version
        ):
            raise SettingsError(
                f"{table.topic} has {partitions} partitions, but its shards are mapped for "
                "another number: it must not grow"
            )


def _check_app(platform: Platform, there: AppRecord) -> None:
    names, app = platform.names, platform.app
    if there.name != app.name:
        raise SettingsError(
            f"namespace {names.namespace} runs app {there.name!r}, and this is {app.name!r}: "
            "set HEADWATER_NAMESPACE, or load the other app"
        )
    if there.digest == app.digest():
        return
    if there.version == app.version:
        raise SettingsError(
            f"app {app.name} here calls itself version {app.version}, as the one in "
            f"{names.ctl('app')} does, but has other types, tools or models: give it a later version, "
            "then run `headwater topics apply` with it"
        )
    logger.info(
        "app %s here is version %s; %s names version %s",
        app.name,
        app.version,
        names.ctl("app"),
        there.version,
    )


def _check_version(own: str, records: Sequence[VersionRecord]) -> None:
    """Refuse code that was taken back, or that a final version left behind."""
    for record in records:
        said = f"{record.actor} said so{': ' + record.reason if record.reason else ''}"
        if record.state == "withdrawn" and record.version == own:
            raise SettingsError(
                f"version {own} of the app was taken back ({said}): run an earlier or a later one"
            )
        if record.state == "final" and is_later(record.version, own):
            raise SettingsError(
                f"version {record.version} of the app is final ({said}), and this is {own}: run that "
                "version or a later one"
            )
        here = importlib.metadata.version("headwater")
        if record.state == "final" and is_later(record.platform, here):
            raise SettingsError(
                f"headwater {record.platform} is final here ({said}), and this is {here}: upgrade it"
            )


def app_record(platform: Platform) -> AppRecord | None:
    """Return which app the namespace runs; `None` before the first apply."""
    found = [one for one in _control(platform, "app") if isinstance(one, AppRecord)]
    return found[0] if found else None


def version_records(platform: Platform) -> list[VersionRecord]:
    """Return what operators said of versions, earliest version first."""
    found = [one for one in _control(platform, "app") if isinstance(one, VersionRecord)]
    order = in_order(one.version for one in found)
    return sorted(found, key=lambda one: order.index(one.version))


async def say(platform: Platform, record: VersionRecord) -> None:
    """Write what an operator says of a version."""
    key = f"version/{record.version}".encode()
    value = platform.codec.encode(record)
    await platform.log.append(Draft(topic=platform.names.ctl("app"), key=key, value=value))


async def announce(platform: Platform) -> None:
    """Say which version of the app this process has, before it joins as a member.

    Raises:
        TransientError: The cluster is away.
        SettingsError: This principal may not write there.
    """
    record = MemberRecord(
        instance=platform.parts.instance, version=platform.app.version, at_ms=confine.wall_ms()
    )
    await _tell_member(platform, record.instance, platform.codec.encode(record))


def told_versions(platform: Platform) -> dict[str, str]:
    """Return which version processes said they have, by instance; some are members no more."""
    records: list[MemberRecord] = _control(platform, "members")
    return {one.instance: one.version for one in records}


async def forget(platform: Platform, instances: Iterable[str]) -> None:
    """Drop what processes said that are members no more: who joins anew has a true client id."""
    for instance in instances:
        await _tell_member(platform, instance, None)


async def _tell_member(platform: Platform, instance: str, value: bytes | None) -> None:
    topic = platform.names.ctl("members")
    await platform.log.append(Draft(topic=topic, key=instance.encode(), value=value))


def recorded_schemas(platform: Platform) -> list[SchemaRecord]:
    """Return the schemas that earlier versions of the app wrote with; empty before the first apply.

    Raises:
        SettingsError: The topic of schemas is not there.
    """
    return [one for one in _control(platform, "schemas") if isinstance(one, SchemaRecord)]


def _control(platform: Platform, name: str) -> list[Any]:
    values = _newest(platform.log, platform.names.ctl(name)).values()
    return [platform.codec.decode(value) for value in values]


def _newest(log: Log, topic: str) -> dict[bytes, bytes]:
    reader = log.read({Partition(topic, n): 0 for n in range(log.partitions(topic))})
    found: dict[bytes, bytes] = {}
    try:
        while not reader.at_end:
            for record in reader.poll(records_max=1_000, wait_ms=200):
                if record.value is not None:
                    found[record.key or b""] = record.value
                else:
                    found.pop(record.key or b"", None)
    finally:
        reader.close()
    return found
