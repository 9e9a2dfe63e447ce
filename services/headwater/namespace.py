"""A namespace: what all its processes share, in the log's control topics."""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Any

from headwater.admission import shards
from headwater.assembly import Parts, Platform
from headwater.contracts.messages import AppRecord, SchemaRecord, ShardTable
from headwater.contracts.records import Draft, Partition
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
    for need in platform.needs(partitions=partitions, coordinators=partitions):
        log.create(
            need.name,
            partitions=need.partitions,
            compacted=need.compacted,
            max_bytes=need.max_bytes,
        )
    for group, topics in platform.groups().items():
        log.begin_group(group, topics)
    await publish(platform)
    return log


async def publish(platform: Platform) -> None:
    """Write what every process reads: the app, its schemas, the shards."""
    names, app, codec = platform.names, platform.app, platform.codec
    record = AppRecord(name=app.name, version=app.version, digest=app.digest())
    drafts = [Draft(topic=names.ctl("app"), key=b"app", value=codec.encode(record))]
    for name, shape in app.shapes().items():
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


def check(platform: Platform) -> None:
    """Compare this process's app with the namespace's, and learn the schemas of others.

    Raises:
        SettingsError: The namespace runs another app, or `topics apply` has not run.
    """
    names, codec = platform.names, platform.codec
    found: dict[type, list[Any]] = {AppRecord: [], SchemaRecord: [], ShardTable: []}
    for name in ("app", "schemas", "shards"):
        for value in _newest(platform.log, names.ctl(name)).values():
            message = codec.decode(value)
            found[type(message)].append(message)
    if not found[AppRecord]:
        raise SettingsError(f"{names.ctl('app')} is empty: run `headwater topics apply`")
    (there,) = found[AppRecord]
    app = platform.app
    if there.name != app.name:
        raise SettingsError(
            f"namespace {names.namespace} runs app {there.name!r}, and this is {app.name!r}: "
            "set HEADWATER_NAMESPACE, or load the other app"
        )
    if there.digest != app.digest():
        logger.warning(
            "app %s here is not the one in %s (version %s): run `headwater topics apply`",
            app.name,
            names.ctl("app"),
            there.version,
        )
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


def recorded_schemas(platform: Platform) -> list[SchemaRecord]:
    """Return the schemas that earlier versions of the app wrote with; empty before the first apply.

    Raises:
        SettingsError: The topic of schemas is not there.
    """
    values = _newest(platform.log, platform.names.ctl("schemas")).values()
    found = [platform.codec.decode(value) for value in values]
    return [message for message in found if isinstance(message, SchemaRecord)]


def _newest(log: Log, topic: str) -> dict[bytes, bytes]:
    reader = log.read({Partition(topic, n): 0 for n in range(log.partitions(topic))})
    found: dict[bytes, bytes] = {}
    try:
        while not reader.at_end:
            for record in reader.poll(records_max=1_000, wait_ms=200):
                if record.value is not None:
                    found[record.key or b""] = record.value
    finally:
        reader.close()
    return found
