"""A world of two deciders whose output shows any loss, repeat or change of order.

Every account is a chain of hashes over its moves. The ledger sends each move's place in the chain
out, some moves on to a mirror with a chain of its own, and sets timers; some moves are poison, some
lead to records that no topic takes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any

from headwater.contracts import messages
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Key, Wake
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Sent, Timer, Turn
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta
from headwater.errors import PoisonError, TransientError
from headwater.log.local import LocalLog
from headwater.log.local_member import LocalMember
from headwater.runtime.deciding import Deciding
from headwater.runtime.pace import Pace
from headwater.runtime.restoring import Inline, Restorer
from headwater.testing.seeded_storm import Loop, Spec

ACCOUNTS = 5
PARTITIONS = 3
POISON, HUGE = 13, 17
HUGE_BYTES = 4_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """An amount for an account; numbered per account."""

    account: str
    number: int
    amount: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """A move's place in its account's chain."""

    account: str
    number: int
    balance: int
    chain: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reminded:
    """A timer of a move fired."""

    account: str
    number: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """An account's row."""

    account: str
    number: int = 0
    balance: int = 0
    chain: bytes = b""
    reminders: int = 0

    @property
    def key(self) -> Key:
        """Filed under its name."""
        return (self.account,)


TYPES = (*messages.SHIPPED, Timer, Move, Posted, Reminded, Account)


class Book:
    """A decider of moves.

    Args:
        name: `ledger` or `mirror`.
        forward: Where some moves go on to, or `None`.
        away: Whether something it needs is away just now.
    """

    def __init__(self, name: str, forward: str | None, away: Callable[[], bool]) -> None:
        self.name = name
        self._forward = forward
        self._away = away

    def react(self, turn: Turn, message: Any) -> None:
        """Chain the move, send its place out, and perhaps more."""
        if isinstance(message, Wake):
            self._remind(turn, message)
            return
        assert isinstance(message, Move)
        row = turn.get(Account, message.account) or Account(account=message.account)
        if self._away():
            raise TransientError("the bank is closed")
        balance = row.balance + message.amount
        chain = hashlib.blake2b(
            row.chain + b"%d/%d" % (message.number, message.amount), digest_size=8
        ).digest()
        turn.put(dataclasses.replace(row, number=message.number, balance=balance, chain=chain))
        turn.send(
            Posted(account=message.account, number=message.number, balance=balance, chain=chain),
            Address(f"sim.evt.{self.name}.v1", message.account),
        )
        if message.amount % 4 == 0:
            turn.put(
                Timer(
                    name=(message.account, message.number),
                    due_ms=turn.now_ms + message.amount,
                    meta=turn.meta,
                )
            )
        if self._forward is not None and message.amount % 3 == 0:
            turn.send(message, Address(self._forward, message.account))
        if message.amount == POISON:
            raise PoisonError("poison", "thirteen is refused, with all its turn did")
        if message.amount == HUGE:
            turn.send(Move(account="x" * HUGE_BYTES, number=0, amount=0), _SMALL)

    def refused(self, turn: Turn, record: Record, message: Any, error: PoisonError) -> None:
        """Nothing waits for an answer."""

    def forget(self, partition: Partition) -> None:
        """Nothing is cached."""

    def _remind(self, turn: Turn, wake: Wake) -> None:
        account, number = str(wake.name[0]), int(wake.name[1])
        row = turn.get(Account, account)
        assert row is not None, "a timer outlives no account"
        turn.put(dataclasses.replace(row, reminders=row.reminders + 1))
        turn.send(
            Reminded(account=account, number=number), Address(f"sim.evt.{self.name}.v1", account)
        )


@functools.cache
def _codec() -> Codec:
    """Return the codec: schemas are hashed once a process, not once a world."""
    return Codec(Schemas(), TYPES)


_SMALL = Address("sim.evt.small.v1", "small", 0)


class Ledger:
    """The world: two instances of each decider over three partitions, and moves to feed them.

    Args:
        seed: Chooses the moves.
        log: The log.
        loops: Builds a loop; a control builds a broken one.
        owners: Wraps an owner; a control wraps it wrongly.
        away: Whether something the deciders need is away just now.
    """

    inboxes: Sequence[tuple[str, str]] = (
        ("sim.ledger", "sim.inbox.ledger.v1"),
        ("sim.mirror", "sim.inbox.mirror.v1"),
    )
    compacted: Sequence[str] = ("sim.state.ledger.v1", "sim.state.mirror.v1")

    def __init__(
        self,
        seed: int,
        log: LocalLog,
        *,
        loops: type[Deciding] = Deciding,
        owners: Callable[[Any], Any] = lambda owner: owner,
        away: Callable[[], bool] = lambda: False,
    ) -> None:
        self.log = log
        self._loops = loops
        self._owners = owners
        self._away = away
        self._codec = _codec()
        self._envelope = Envelope(self._codec, source="simulation")
        self._executor = Inline()
        for group, inbox in self.inboxes:
            log.create(inbox, partitions=PARTITIONS)
            log.begin_group(group, [inbox])
        for state in self.compacted:
            log.create(state, partitions=PARTITIONS, compacted=True)
        for name in ("ledger", "mirror"):
            log.create(f"sim.evt.{name}.v1", partitions=2)
        log.create(_SMALL.topic, max_bytes=HUGE_BYTES)
        log.create("sim.quarantine.v1")
        self.specs: Sequence[Spec] = [
            Spec(f"{group}/{instance}", self._starter(group, inbox, instance))
            for group, inbox in self.inboxes
            for instance in ("a", "b")
        ]
        self.feed: Sequence[Draft] = self._moves(random.Random(f"ledger/{seed}"))  # noqa: S311 - a seeded world

    def ready(self, draft: Draft) -> bool:
        """Moves wait for nothing."""
        return True

    def may_repeat(self, draft: Draft) -> bool:
        """A move that came twice would be chained twice: that is the point."""
        return False

    def outcome(self) -> dict[str, Any]:
        """Return chains in order, reminders, what was quarantined, and the rows."""
        found: dict[str, Any] = {}
        for name in ("ledger", "mirror"):
            for value in self._values(f"sim.evt.{name}.v1"):
                message = self._codec.decode(value)
                if isinstance(message, Posted):
                    line = (message.number, message.balance, message.chain.hex())
                    found.setdefault(f"{name} {message.account}", []).append(line)
                else:
                    found.setdefault(f"{name} reminders", []).append(
                        (message.account, message.number)
                    )
            rows: dict[bytes, Any] = {}
            for record in self._records(f"sim.state.{name}.v1"):
                rows[record.key or b""] = record.value and self._codec.decode(record.value)
            found[f"{name} rows"] = {key.hex(): row for key, row in rows.items() if row is not None}
            if f"{name} reminders" in found:
                found[f"{name} reminders"].sort()
        found["quarantine"] = sorted(self._values("sim.quarantine.v1"))
        found["small"] = self._values(_SMALL.topic)
        return found

    def _moves(self, choice: random.Random) -> list[Draft]:
        numbers = dict.fromkeys((f"account-{n}" for n in range(ACCOUNTS)), 0)
        drafts = []
        for count in range(40):
            account = choice.choice([*numbers])
            numbers[account] += 1
            amount = choice.randint(1, 60)
            if count % 20 == 10:  # noqa: PLR2004 - two of forty
                amount = choice.choice([POISON, HUGE])
            move = Move(account=account, number=numbers[account], amount=amount)
            meta = Meta(id=f"{account}/{move.number}", tenant="t")
            drafts.append(
                self._envelope.seal(
                    Sent(message=move, to=Address(self.inboxes[0][1], account), meta=meta)
                )
            )
        return drafts

    def _starter(
        self, group: str, inbox: str, instance: str
    ) -> Callable[[Callable[[], int]], tuple[Loop, LocalMember]]:
        name = group.rpartition(".")[2]
        forward = self.inboxes[1][1] if name == "ledger" else None
        state = f"sim.state.{name}.v1"

        def start(clock: Callable[[], int]) -> tuple[Loop, LocalMember]:
            owner = self.log.own([inbox], group=group, instance=instance)
            restorer = Restorer(
                self.log, group=group, state=state, codec=self._codec, executor=self._executor
            )
            loop = self._loops(
                log=self.log,
                owner=self._owners(owner),
                decider=Book(name, forward, self._away),
                envelope=self._envelope,
                restorer=restorer,
                quarantine=lambda record, error: Draft(
                    topic="sim.quarantine.v1", key=record.key, value=record.value, partition=0
                ),
                state=state,
                clock=clock,
                pace=Pace(records_max=4, batch_ms_max=3_600_000, retry_ms_min=5, retry_ms_max=20),
            )
            return loop, owner

        return start

    def _records(self, topic: str) -> Sequence[Record]:
        places = [Partition(topic, n) for n in range(self.log.partitions(topic))]
        reader = self.log.read(dict.fromkeys(places, 0))
        return reader.poll(records_max=100_000, wait_ms=0)

    def _values(self, topic: str) -> list[bytes]:
        return [record.value or b"" for record in self._records(topic)]
