"""The records of `ctl` topics: what the processes of a namespace share, the newest of each key."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AppRecord:
    """`ctl.app`: which app this namespace runs, by name, version and the digest of its surface."""

    name: str
    version: str
    digest: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """`ctl.app`: what an operator said of a version of the app; the newest word counts.

    Args:
        version: The version.
        state: `final`: processes of earlier versions do not join any more. `withdrawn`: older code
            takes what it wrote, and processes of it do not join any more.
        platform: For `final`: the version of headwater itself, which counts likewise.
        actor: Who said so.
        reason: Why.
        at_ms: When.
    """

    version: str
    state: Literal["final", "withdrawn"]
    platform: str = ""
    actor: str
    reason: str = ""
    at_ms: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MemberRecord:
    """`ctl.members`: which version of the app a process has that is about to join the agents' groups.

    Args:
        instance: The process's name in its groups.
        version: Of the app.
        at_ms: When it said so.
    """

    instance: str
    version: str
    at_ms: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SchemaRecord:
    """`ctl.schemas`: a writer schema, by its CRC-64-AVRO fingerprint (the record's key)."""

    name: str
    schema: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ShardTable:
    """`ctl.shards`: which partition each of a topic's fixed virtual shards lives in."""

    topic: str
    version: int
    partitions: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """`ctl.suspects`: a record that was at work when a process died, until it has survived once.

    Args:
        topic: Of the record.
        topic_id: Of that topic's life.
        partition: Of the record.
        offset: Of the record.
        what: The run of a turn, the call of a call.
        alone: How many processes died with nothing else at work.
        deaths: How and where processes died, the newest last.
    """

    topic: str
    topic_id: str
    partition: int
    offset: int
    what: str
    alone: int = 0
    deaths: tuple[str, ...] = ()


SHIPPED = (AppRecord, VersionRecord, MemberRecord, SchemaRecord, ShardTable, Suspect)
