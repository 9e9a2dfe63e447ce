"""Lanes: calls with one order key start in order, all others in parallel, tenants in turn."""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
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
        queued_max: Waiting per partition; beyond it, the partition is paused.
    """

    calls_max: int = 1_000
    tenant_max: int = 1_000
    name_max: int = 1_000
    queued_max: int = 2_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Queued(Generic[T]):
    """Something that waits to start.

    Args:
        item: What.
        tenant: Whose.
        name: Which tool or model.
        order_key: Calls with the same one start in order; empty for any order.
    """

    item: T
    tenant: str
    name: str
    order_key: str

    @property
    def lane(self) -> Lane | None:
        """The lane it has to keep to, if any."""
        return (self.tenant, self.name, self.order_key) if self.order_key else None


class Lanes(Generic[T]):
    """What waits and what is under way; it starts whatever its bounds and order allow.

    Tenants are served in turn, each its oldest call that may start.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._waiting: OrderedDict[str, deque[Queued[T]]] = OrderedDict()
        self._blocked: dict[Lane, deque[Queued[T]]] = {}
        self._busy: set[Lane] = set()
        self._tenants: Counter[str] = Counter()
        self._names: Counter[str] = Counter()
        self.running = 0

    def __len__(self) -> int:
        waiting = sum(map(len, self._waiting.values()))
        return waiting + sum(map(len, self._blocked.values()))

    def put(self, one: Queued[T]) -> None:
        """Add a call behind those of its tenant, and of its lane."""
        lane = one.lane
        if lane is not None:
            if lane in self._busy:
                self._blocked.setdefault(lane, deque()).append(one)
                return
            self._busy.add(lane)
        self._waiting.setdefault(one.tenant, deque()).append(one)

    def next(self) -> Queued[T] | None:
        """Start the next call that may start; `None` if none may."""
        if self.running >= self._bounds.calls_max:
            return None
        for tenant in [*self._waiting]:
            if self._tenants[tenant] >= self._bounds.tenant_max:
                continue
            one = self._first(self._waiting[tenant])
            if one is None:
                continue
            if self._waiting[tenant]:
                self._waiting.move_to_end(tenant)
            else:
                del self._waiting[tenant]
            self.running += 1
            self._tenants[tenant] += 1
            self._names[one.name] += 1
            return one
        return None

    def done(self, one: Queued[T]) -> None:
        """A call that was started has ended; the next of its lane may go."""
        self.running -= 1
        self._tenants[one.tenant] -= 1
        self._names[one.name] -= 1
        self._free(one)

    def discard(self, of: Callable[[T], bool]) -> None:
        """Forget waiting calls, for example those of a lost claim; running ones go on."""
        for lane, blocked in [*self._blocked.items()]:
            kept = deque(one for one in blocked if not of(one.item))
            if kept:
                self._blocked[lane] = kept
            else:
                del self._blocked[lane]
        for tenant, waiting in [*self._waiting.items()]:
            gone = [one for one in waiting if of(one.item)]
            kept = deque(one for one in waiting if not of(one.item))
            if kept:
                self._waiting[tenant] = kept
            else:
                del self._waiting[tenant]
            for one in gone:
                self._free(one)

    def _first(self, waiting: deque[Queued[T]]) -> Queued[T] | None:
        for place, one in enumerate(waiting):
            if self._names[one.name] < self._bounds.name_max:
                del waiting[place]
                return one
        return None

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
        self._waiting.setdefault(following.tenant, deque()).append(following)
