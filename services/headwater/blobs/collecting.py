"""Collecting: what nothing refers to is set aside, and deleted once nothing has for long enough.

A blob goes in two steps, each only after an age that is longer than anything stays unseen between
its put and the record that refers to it: first aside, where readers still find it, and in a later
collection for good, unless something refers to it by then. Writers put what they refer to again, so
they need not know that anybody collects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping

from headwater.blobs.store import Blob, Store
from headwater.contracts.records import Partition
from headwater.core.blobs import is_node, names_in
from headwater.log.port import Log

KINDS_WITHOUT = frozenset({"cmd", "evt", "ctl", "audit"})
"""Kinds of topics whose records refer to no blob; every other one is read, whoever made it."""
RECORDS_MAX = 5_000
WAIT_MS = 200


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """How far a collection has come.

    Args:
        doing: What it does now, for people.
        blobs: Blobs looked at.
        bytes: Their bytes.
        referenced: Those that something refers to.
        young: Others that are too young to tell.
        set_aside: Those that were, or would be, set aside.
        aside: What lay aside before.
        brought_back: Of those, what something refers to after all.
        deleted: Of those, what was, or would be, deleted.
        deleted_bytes: Bytes of these.
        missing: Names that something refers to and the store does not have.
    """

    doing: str = ""
    blobs: int = 0
    bytes: int = 0
    referenced: int = 0
    young: int = 0
    set_aside: int = 0
    aside: int = 0
    brought_back: int = 0
    deleted: int = 0
    deleted_bytes: int = 0
    missing: tuple[str, ...] = ()


Marks = Callable[[], Iterator[set[str]]]
"""Yields, piece by piece, the names that records refer to."""


def topics_with(names: Iterable[str], namespace: str) -> list[str]:
    """Return the topics of a namespace whose records may refer to blobs."""
    prefix = f"{namespace}."
    ours = (name for name in names if name.startswith(prefix))
    return sorted(name for name in ours if name.split(".")[1] not in KINDS_WITHOUT)


def marks(log: Log, topics: Mapping[str, int]) -> Iterator[set[str]]:
    """Yield the names in every record of some topics, up to where they end when this begins.

    Names are found in the bytes as they stand, so records of other versions, and what was refused,
    count as well.

    Args:
        log: The log.
        topics: Topic to its number of partitions.
    """
    for topic, partitions in topics.items():
        reader = log.read({Partition(topic, number): 0 for number in range(partitions)})
        try:
            while not reader.at_end:
                found: set[str] = set()
                for record in reader.poll(records_max=RECORDS_MAX, wait_ms=WAIT_MS):
                    for data in (record.value, record.key, *(value for _, value in record.headers)):
                        if data:
                            found |= names_in(data)
                yield found
        finally:
            reader.close()


def collect(
    store: Store, read: Marks, *, keep_ms: int, dry_run: bool = False
) -> Iterator[Collected]:
    """Collect; yields after every step how far it has come, the last time what it did.

    Args:
        store: The store.
        read: Reads the names that records refer to.
        keep_ms: What is younger stays, whoever refers to it.
        dry_run: Whether nothing is changed.

    Raises:
        TransientError: The store or the log is away; what was done by then was right, and the next
            collection does the rest.
    """
    old_ms = store.now_ms() - keep_ms
    marked: set[str] = set()
    done = Collected(doing="reading what refers to blobs")
    for names in read():
        marked |= names
        yield done
    live, aside = [*store.scan()], [*store.scan(aside=True)]
    young = {blob.name for blob in live if blob.put_ms > old_ms}
    done = dataclasses.replace(
        done, doing="following conversations", blobs=len(live), aside=len(aside),
        bytes=sum(blob.size for blob in live),
    )  # fmt: skip
    yield done
    there = {blob.name: blob for blob in (*aside, *live)}
    for _ in _follow(store, there, marked, young):
        yield done
    missing = tuple(sorted(marked - there.keys()))
    done = dataclasses.replace(done, doing="looking at blobs", missing=missing)
    for blob in live:
        done = dataclasses.replace(
            done,
            referenced=done.referenced + (blob.name in marked),
            young=done.young + (blob.name not in marked and blob.put_ms > old_ms),
        )
        if blob.name in marked or blob.put_ms > old_ms:
            continue
        done = dataclasses.replace(done, set_aside=done.set_aside + 1)
        if not dry_run:
            yield from _set_aside(store, blob, old_ms, done)
        yield done
    done = dataclasses.replace(done, doing="looking at what lies aside")
    for blob in aside:
        if blob.name in marked:
            done = dataclasses.replace(done, brought_back=done.brought_back + 1)
            if not dry_run:
                store.bring_back(blob.tenant, blob.name)
        elif blob.put_ms <= old_ms:
            done = dataclasses.replace(
                done, deleted=done.deleted + 1, deleted_bytes=done.deleted_bytes + blob.size
            )
            if not dry_run:
                yield from _delete(store, blob, old_ms, done)
        yield done
    yield dataclasses.replace(done, doing="done")


def _follow(
    store: Store, there: Mapping[str, Blob], marked: set[str], young: set[str]
) -> Iterator[None]:
    """Mark what marked and young blobs name: a young one may be about to be referred to."""
    seen: set[str] = set()
    waiting = [name for name in marked | young if is_node(name)]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        blob = there.get(name)
        if blob is None:
            continue
        names = names_in(store.get(blob.tenant, name))
        marked |= names
        waiting += [one for one in names if is_node(one)]
        yield


def _set_aside(store: Store, blob: Blob, old_ms: int, done: Collected) -> Iterator[Collected]:
    """Set one aside, unless somebody has put it again meanwhile."""
    now = store.look(blob.tenant, blob.name)
    yield done
    if now is None or now.put_ms > old_ms:
        return
    store.set_aside(blob.tenant, blob.name)
    yield done
    store.drop(blob.tenant, blob.name)


def _delete(store: Store, blob: Blob, old_ms: int, done: Collected) -> Iterator[Collected]:
    """Delete what lies aside, unless it was set aside anew in this very collection."""
    now = store.look(blob.tenant, blob.name, aside=True)
    yield done
    if now is not None and now.put_ms <= old_ms:
        store.delete(blob.tenant, blob.name)
