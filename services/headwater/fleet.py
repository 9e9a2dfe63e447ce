"""A fleet as one of its processes sees it: schemas, versions of the app, and who has which."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Mapping

from headwater.assembly import Platform
from headwater.contracts.ctl import MemberRecord, SchemaRecord, VersionRecord
from headwater.core.versions import Versions
from headwater.errors import PoisonError, SettingsError, TransientError
from headwater.layout import places

logger = logging.getLogger(__name__)

GONE_S = 300.0
LOOK_S = 2.0
_IDLE_MS = 200

Members = Callable[[], Collection[str]]
"""Returns the client ids of the members that the agents' groups have now."""


class Fleet:
    """What is known of versions; one thread writes, the loops read.

    A version counts as gone once no member has had it for a while, all of which somebody looked.

    Args:
        gone_s: For how long.
        clock_s: A clock that only goes on.
    """

    def __init__(
        self, *, gone_s: float = GONE_S, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._gone_s = gone_s
        self._clock_s = clock_s
        self._since_s: float | None = None
        self._seen_s: dict[str, float] = {}
        self._now = Versions()

    def versions(self) -> Versions:
        """Return what is known now."""
        return self._now

    def learn(self, record: VersionRecord) -> None:
        """Take over what an operator said of a version."""
        withdrawn = self._now.withdrawn - {record.version}
        if record.state == "withdrawn":
            withdrawn |= {record.version}
        self._now = dataclasses.replace(self._now, withdrawn=withdrawn)

    def saw(self, versions: Collection[str]) -> None:
        """Note which versions members have now."""
        now_s = self._clock_s()
        if self._since_s is None:
            self._since_s = now_s
        self._seen_s.update(dict.fromkeys(versions, now_s))
        lately = frozenset(
            version for version, seen_s in self._seen_s.items() if now_s - seen_s <= self._gone_s
        )
        known = now_s - self._since_s >= self._gone_s
        self._now = dataclasses.replace(self._now, lately=lately if known else None)

    def missed(self) -> None:
        """Note that nobody could look: whoever was here meanwhile was not seen."""
        self._since_s = None
        self._now = dataclasses.replace(self._now, lately=None)


class Following:
    """Follows the namespace's control topics, and looks who is there.

    Args:
        platform: Learns schemas.
        fleet: Learns versions.
        members: Who is there; `None` where nobody else can be.
        look_s: How often to look.
        clock_s: A clock that only goes on.
    """

    def __init__(
        self,
        platform: Platform,
        fleet: Fleet,
        members: Members | None = None,
        *,
        look_s: float = LOOK_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._platform = platform
        self._fleet = fleet
        self._members = members
        self._look_s = look_s
        self._clock_s = clock_s
        self._next_s = clock_s()
        self._away = False
        names, log = platform.names, platform.log
        self._told: dict[str, str] = {}
        topics = (names.ctl("app"), names.ctl("members"), names.ctl("schemas"))
        self._reader = log.read({place: 0 for topic in topics for place in places(log, topic)})

    def step(self, wait_ms: int = 0) -> int:
        """Take in what is new; return how many records that was."""
        records = self._reader.poll(records_max=1_000, wait_ms=wait_ms)
        for record in records:
            if record.value is not None:
                self._take(record.value)
            elif record.partition.topic == self._platform.names.ctl("members"):
                self._told.pop((record.key or b"").decode(), None)
        if self._members is not None and self._clock_s() >= self._next_s:
            self._next_s = self._clock_s() + self._look_s
            self._look(self._members)
        return len(records)

    def run(self, stop: threading.Event) -> None:
        """Follow until told to stop."""
        try:
            while not stop.is_set():
                self.step(_IDLE_MS)
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _take(self, value: bytes) -> None:
        try:
            message = self._platform.codec.decode(value)
        except PoisonError as error:
            logger.warning("a record of the namespace's control topics is left out: %s", error)
            return
        if isinstance(message, SchemaRecord):
            self._platform.schemas.add(message.schema)
        elif isinstance(message, VersionRecord):
            self._fleet.learn(message)
        elif isinstance(message, MemberRecord):
            self._told[message.instance] = message.version

    def _look(self, members: Members) -> None:
        """See who is there; who does not see itself among them sees nobody, as under KIP-848."""
        try:
            seen = present(members(), self._told)
            if any(one.instance == self._platform.parts.instance for one in seen):
                self._fleet.saw({one.version for one in seen})
            else:
                self._fleet.missed()
        except (TransientError, SettingsError) as error:
            self._fleet.missed()
            if not self._away:
                logger.warning("nobody can see which versions are there: %s", error)
            self._away = True
        else:
            self._away = False


def tag(version: str) -> str:
    """Return a version as client ids carry it."""
    return urllib.parse.quote(version, safe="")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """A member of an agents' group.

    Args:
        instance: Its name in the group.
        version: Of the app.
    """

    instance: str
    version: str


def present(client_ids: Iterable[str], told: Mapping[str, str]) -> list[Present]:
    """Return the members of ours among some clients.

    A broker keeps the client id of a static member whose next process joins within its session: what
    that process said before it joined counts.

    Args:
        client_ids: `<group>/<instance>/<version>`; others are no members of ours.
        told: Instance to the version that its process said it has.
    """
    parts = [client.split("/") for client in client_ids]
    return [
        Present(instance=part[1], version=told.get(part[1], urllib.parse.unquote(part[2])))
        for part in parts
        if len(part) == 3  # noqa: PLR2004 - group, instance, version
    ]
