"""Lanes: calls with one order key go one after the other, all others in parallel, tenants in turn."""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")
Lane = tuple[str, str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much is under way at once.

    Args:
        calls_max: In this process.
        tenant_max: Of one tenant.
        name_max: Of one tool or model.
        queued_max: Requests in hand per partition; beyond it, the partition is paused.
        queued_bytes_max: Their bytes per partition; beyond it, the partition is paused.
        window_max: Offsets from a partition's first unanswered request to its newest; beyond it,
            the partition is paused, so that a crash repeats no more.
        poll_max: Records of one poll.
        mark_ms_min: Least time between two marks while requests come.
        quiet_s_max: How long a call may go on without a heartbeat.
        weights: How many calls a tenant starts in its turn, where that is not one.
    """

    calls_max: int = 1_000
    tenant_max: int = 1_000
    name_max: int = 1_000
    queued_max: int = 2_000
    queued_bytes_max: int = 64 * 1024 * 1024
    window_max: int = 16_384
    poll_max: int = 500
    mark_ms_min: int = 100
    quiet_s_max: float = 300.0
    weights: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Queued(Generic[T]):
    """Something that waits to start.

    Args:
        item: What.
        tenant: Whose.
        name: Which tool or model.
        order_key: Calls with the same one go in order; empty for any order.
    """

    item: T
    tenant: str
    name: str
    order_key: str

    @property
    def lane(self) -> Lane | None:
        """The lane it has to keep to, if any."""
        return (self.tenant, self.name, self.order_key) if self.order_key else None


class _Tenant(Generic[T]):
    """One tenant's waiting calls, by name, each with when it came."""

    __slots__ = ("left", "queues", "running", "weight")

    def __init__(self, weight: int) -> None:
        self.queues: dict[str, deque[tuple[int, Queued[T]]]] = {}
        self.running = 0
        self.weight = self.left = max(1, weight)
        """Calls that it may start before the next tenant's turn, and how many of them are left."""


class Lanes(Generic[T]):
    """What waits and what is under way; it starts whatever its bounds and order allow.

    Tenants that have a call to start are served in turn, each its oldest calls that may start, as
    many as its weight. A tenant is looked at only when something of it may have changed, so
    thousands that wait cost nothing.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._of: dict[str, _Tenant[T]] = {}
        self._turn: OrderedDict[str, None] = OrderedDict()
        """Tenants to look at, the next one first; all others have nothing that may start."""
        self._parked: dict[str, OrderedDict[str, None]] = {}
        """Name at its bound to the tenants that wait for it, in order; some may have gone."""
        self._names: Counter[str] = Counter()
        self._blocked: dict[Lane, deque[Queued[T]]] = {}
        self._busy: set[Lane] = set()
        self._came = 0
        self._waiting = 0
        self.running = 0

    def __len__(self) -> int:
        return self._waiting

    def put(self, one: Queued[T]) -> None:
        """Add a call behind those of its tenant, and of its lane."""
        self._waiting += 1
        lane = one.lane
        if lane is not None:
            if lane in self._busy:
                self._blocked.setdefault(lane, deque()).append(one)
                return
            self._busy.add(lane)
        self._queue(one)

    def next(self) -> Queued[T] | None:
        """Start the next call that may start; `None` if none may."""
        if self.running >= self._bounds.calls_max:
            return None
        while self._turn:
            name, _ = self._turn.popitem(last=False)
            tenant = self._of[name]
            if tenant.running >= self._bounds.tenant_max:
                # Its next end brings it back; meanwhile others may have what it was woken for.
                self._wake(*tenant.queues)
                continue
            one = self._oldest(tenant)
            if one is None:
                for wanted in tenant.queues:
                    self._parked.setdefault(wanted, OrderedDict())[name] = None
                continue
            tenant.left -= 1
            stays = tenant.left > 0
            if not stays:
                tenant.left = tenant.weight
            if tenant.queues:
                self._turn[name] = None
                if stays:
                    self._turn.move_to_end(name, last=False)
            self._waiting -= 1
            self.running += 1
            tenant.running += 1
            self._names[one.name] += 1
            return one
        return None

    def done(self, one: Queued[T]) -> None:
        """A call that was started has ended; the next of its lane may go."""
        self.running -= 1
        self._names[one.name] -= 1
        tenant = self._of[one.tenant]
        tenant.running -= 1
        self._free(one)
        self._wake(one.name)
        if tenant.queues:
            self._turn.setdefault(one.tenant)
        elif not tenant.running:
            del self._of[one.tenant]
            self._turn.pop(one.tenant, None)

    def discard(self, of: Callable[[T], bool]) -> None:
        """Forget waiting calls, for example those of a lost claim; running ones go on."""
        for lane, blocked in [*self._blocked.items()]:
            kept = deque(one for one in blocked if not of(one.item))
            self._waiting -= len(blocked) - len(kept)
            if kept:
                self._blocked[lane] = kept
            else:
                del self._blocked[lane]
        for one in [*self._discarded(of)]:
            self._waiting -= 1
            self._free(one)
        for name, tenant in [*self._of.items()]:
            if tenant.queues:
                self._turn.setdefault(name)
            elif not tenant.running:
                del self._of[name]
                self._turn.pop(name, None)

    def _discarded(self, of: Callable[[T], bool]) -> Iterator[Queued[T]]:
        for tenant in self._of.values():
            for name, queue in [*tenant.queues.items()]:
                yield from (one for _, one in queue if of(one.item))
                kept = deque(entry for entry in queue if not of(entry[1].item))
                if kept:
                    tenant.queues[name] = kept
                else:
                    del tenant.queues[name]

    def _queue(self, one: Queued[T]) -> None:
        self._came += 1
        tenant = self._of.get(one.tenant)
        if tenant is None:
            weight = self._bounds.weights.get(one.tenant, 1)
            tenant = self._of[one.tenant] = _Tenant(weight)
        tenant.queues.setdefault(one.name, deque()).append((self._came, one))
        self._turn.setdefault(one.tenant)

    def _oldest(self, tenant: _Tenant[T]) -> Queued[T] | None:
        """Take the tenant's oldest call whose name is below its bound."""
        heads = (
            (queue[0][0], name)
            for name, queue in tenant.queues.items()
            if self._names[name] < self._bounds.name_max
        )
        _, name = min(heads, default=(0, None))
        if name is None:
            return None
        queue = tenant.queues[name]
        _, one = queue.popleft()
        if not queue:
            del tenant.queues[name]
        return one

    def _wake(self, *names: str) -> None:
        """Have one tenant that waits for each of these look again, if there is room."""
        for name in names:
            parked = self._parked.get(name)
            while parked and self._names[name] < self._bounds.name_max:
                woken, _ = parked.popitem(last=False)
                tenant = self._of.get(woken)
                if tenant is None or name not in tenant.queues:
                    continue
                if tenant.running >= self._bounds.tenant_max:
                    continue
                self._turn[woken] = None
                self._turn.move_to_end(woken, last=False)
                break
            if parked is not None and not parked:
                del self._parked[name]

    def _free(self, one: Queued[T]) -> None:
        lane = one.lane
        if lane is None:
            return
        blocked = self._blocked.get(lane)
        if not blocked:
            self._busy.discard(lane)
            return
        following = blocked.popleft()
        if not blocked:
            del self._blocked[lane]
        self._queue(following)
