"""The collector among writers and readers, in every order: nothing that is referred to is ever lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

import pytest

from headwater.blobs import collecting
from headwater.blobs.collecting import Collected
from headwater.blobs.store import Blob, Store
from headwater.contracts.records import Draft
from headwater.core.blobs import names_in, ref_of
from headwater.errors import BlobLostError
from headwater.log.local import LocalLog

KEEP_MS = 100
GAP_MS = 60
"""Longest time between a put and the commit that refers to it; shorter than what the collector keeps."""
SEEDS = 300
STEPS = 500


class Clocked(Store):
    """A store in memory whose clock stands still until it is moved."""

    def __init__(self) -> None:
        super().__init__(None, namespace="ns", where="memory:")  # type: ignore[arg-type] # not asked
        self.objects: dict[tuple[str, str, str], tuple[bytes, int]] = {}
        self.time_ms = 1_000

    def now_ms(self) -> int:
        return self.time_ms

    def scan(self, tenant: str = "", *, aside: bool = False) -> Iterator[Blob]:
        place = "aside" if aside else "live"
        for (where, of, name), (value, put_ms) in sorted(self.objects.items()):
            if where == place and tenant in ("", of):
                yield Blob(tenant=of, name=name, size=len(value), put_ms=put_ms)

    def look(self, tenant: str, name: str, *, aside: bool = False) -> Blob | None:
        return next((b for b in self.scan(tenant, aside=aside) if b.name == name), None)

    def _mark(self) -> None:
        self._marked = True

    def _is_marked(self) -> bool:
        return True

    def _put(self, place: str, tenant: str, name: str, value: bytes) -> None:
        self.objects[place, tenant, name] = (value, self.time_ms)

    def _get(self, place: str, tenant: str, name: str) -> bytes | None:
        found = self.objects.get((place, tenant, name))
        return None if found is None else found[0]

    def _delete(self, place: str, tenant: str, name: str) -> None:
        self.objects.pop((place, tenant, name), None)


class World:
    """Writers, readers and a collector over one store and one set of references, by a seed."""

    def __init__(self, seed: int, *, keep_ms: int = KEEP_MS) -> None:
        self.random = random.Random(seed)
        self.store = Clocked()
        self.keep_ms = keep_ms
        self.refs: dict[str, str] = {}
        self.hurried = 0
        self.collections = 0
        self.deleted = 0

    def run(self) -> None:
        actors: list[Iterator[Any]] = [self._writer(f"w{n}") for n in range(3)]
        actors += [self._chain("c0"), self._chain("c1"), self._collector()]
        for _ in range(STEPS):
            next(self.random.choice(actors))
            self.store.time_ms += self.random.randint(0, 3)
            if not self.hurried and self.random.random() < 0.05:
                self.store.time_ms += KEEP_MS * 2
            self._read()

    def _read(self) -> None:
        """Whatever a committed record refers to can be read, and what that names too."""
        waiting = list(self.refs.values())
        while waiting:
            waiting += names_in(self.store.get("t", waiting.pop()))

    def _put(self, value: bytes) -> Iterator[None]:
        """Put, and be some time on the way to the commit."""
        self.store.put("t", value)
        self.hurried += 1
        until_ms = self.store.time_ms + self.random.randint(0, GAP_MS)
        while self.store.time_ms < until_ms:
            yield
        self.hurried -= 1

    def _writer(self, who: str) -> Iterator[None]:
        """Refers to one of a few values, again and again, and lets go of it."""
        while True:
            value = b"value %d" % self.random.randint(0, 3)
            yield from self._put(value)
            self.refs[who] = ref_of(value).name
            yield
            for _ in range(self.random.randint(0, 10)):
                yield
            self.refs.pop(who)
            yield

    def _chain(self, who: str) -> Iterator[None]:
        """Goes on with a conversation: a part names the one before, which is put once."""
        while True:
            before = b""
            for number in range(self.random.randint(1, 5)):
                part = b"%d %b" % (number, before)
                yield from self._put(part)
                before = ref_of(part).name.encode()
                self.refs[who] = before.decode()
                yield
                for _ in range(self.random.randint(0, 10)):
                    yield
            self.refs.pop(who)
            yield

    def _collector(self) -> Iterator[None]:
        while True:

            def marks() -> Iterator[set[str]]:
                yield set(self.refs.values())
                yield set(self.refs.values())

            for done in collecting.collect(self.store, marks, keep_ms=self.keep_ms):
                yield
                if done.doing == "done":
                    self.collections += 1
                    self.deleted += done.deleted


def test_no_interleaving_loses_what_is_referred_to() -> None:
    """300 histories of writers, conversations, readers and a collector, one step at a time."""
    collections = deleted = 0
    for seed in range(SEEDS):
        world = World(seed)
        world.run()
        collections += world.collections
        deleted += world.deleted
    assert collections > SEEDS
    assert deleted > SEEDS / 10


def losing(monkeypatch: pytest.MonkeyPatch, **options: Any) -> int:
    lost = 0
    for seed in range(SEEDS):
        try:
            World(seed, **options).run()
        except BlobLostError:
            lost += 1
    return lost


def test_control_without_the_age_check_blobs_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector that looks at references alone deletes what is about to be referred to."""
    assert losing(monkeypatch, keep_ms=-1) > 0


def test_control_deleting_at_once_loses_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer may put a blob again between the last look and the delete: hence two steps."""
    monkeypatch.setattr(Clocked, "set_aside", lambda self, tenant, name: None)
    assert losing(monkeypatch) > 0


def test_control_without_following_chains_conversations_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the last part of a conversation is named by a record."""
    monkeypatch.setattr(collecting, "_follow", lambda *of: iter(()))
    assert losing(monkeypatch) > 0


def collected(store: Store, marked: set[str], **options: Any) -> Collected:
    steps = [*collecting.collect(store, lambda: iter([marked]), keep_ms=KEEP_MS, **options)]
    return steps[-1]


def test_what_nothing_refers_to_goes_in_two_steps() -> None:
    """Aside after one age, away after another; what is in use or young stays."""
    store = Clocked()
    store.put("t", b"used")
    store.put("t", b"unused")
    store.time_ms += KEEP_MS + 1
    store.put("t", b"young")
    used = {ref_of(b"used").name}
    first = collected(store, used)
    assert (first.referenced, first.young, first.set_aside, first.deleted) == (1, 1, 1, 0)
    assert store.get("t", ref_of(b"unused").name) == b"unused"
    assert collected(store, used).deleted == 0
    store.time_ms += KEEP_MS + 1
    store.put("t", b"young")
    second = collected(store, used)
    assert (second.deleted, second.deleted_bytes) == (1, 6)
    with pytest.raises(BlobLostError):
        store.get("t", ref_of(b"unused").name)


def test_what_is_referred_to_again_is_brought_back() -> None:
    """A record that comes to light counts, however late."""
    store = Clocked()
    store.put("t", b"value")
    store.time_ms += KEEP_MS + 1
    collected(store, set())
    store.time_ms += KEEP_MS + 1
    assert collected(store, {ref_of(b"value").name}).brought_back == 1
    assert [blob.name for blob in store.scan()] == [ref_of(b"value").name]


def test_a_dry_run_changes_nothing() -> None:
    """It says what it would do."""
    store = Clocked()
    store.put("t", b"one")
    store.time_ms += KEEP_MS + 1
    collected(store, set())
    store.put("t", b"two")
    store.time_ms += KEEP_MS + 1
    before = dict(store.objects)
    done = collected(store, set(), dry_run=True)
    assert (done.set_aside, done.deleted) == (1, 1)
    assert collected(store, {ref_of(b"one").name}, dry_run=True).brought_back == 1
    assert store.objects == before


def test_missing_blobs_are_named() -> None:
    """A collection sees what was lost before anybody needs it."""
    name = ref_of(b"gone" + ref_of(b"x").name.encode()).name
    assert collected(Clocked(), {name}).missing == (name,)


async def append(log: LocalLog, draft: Draft) -> None:
    await log.append(draft)


def test_references_are_found_wherever_they_stand() -> None:
    """In values, keys and headers; in rows, in what was refused, in dead letters, of any version."""
    names = [ref_of(b"%d" % number).name for number in range(4)]
    log = LocalLog(clock=lambda: 1)
    topics = {"ns.state.runs.a.v1": 2, "ns.quarantine.inbox.a.v1": 1, "ns.dlq.a.v1": 1}
    for topic, partitions in topics.items():
        log.create(topic, partitions=partitions)
    drafts = [
        Draft(topic="ns.state.runs.a.v1", partition=1, key=b"k", value=names[0].encode() + b"\x00"),
        Draft(topic="ns.quarantine.inbox.a.v1", key=names[1].encode(), value=b"\xff\x00"),
        Draft(topic="ns.dlq.a.v1", key=b"", headers=(("h", names[2].encode()), ("n", None))),
    ]
    for draft in drafts:
        asyncio.run(append(log, draft))
    found: set[str] = set()
    for piece in collecting.marks(log, topics):
        found |= piece
    assert found == set(names[:3])


def test_every_topic_that_may_refer_to_blobs_is_read() -> None:
    """Also one that today's app does not know: a run of yesterday's may still wait in it."""
    names = [
        "ns.state.runs.gone.v1",
        "ns.evt.runs.v1",
        "ns.cmd.a.v1",
        "other.state.x.v1",
        "ns.board.b.v1",
    ]
    assert collecting.topics_with(names, "ns") == ["ns.board.b.v1", "ns.state.runs.gone.v1"]
