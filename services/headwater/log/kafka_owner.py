"""A decider's membership on Kafka: outputs and offsets are one transaction, or none of it happened."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.log.kafka_transactor import KafkaTransactor
from headwater.log.port import Claim, Poll, Work

_OPEN_AGAIN_S = 0.2


class KafkaOwner(KafkaTransactor):
    """Commits work; see `log.port.Owner`."""

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait for news; without a producer nothing is gained, and so nothing delivered.

        The producer comes after the membership: whoever took the name over has fenced the
        membership first, so a process that lost its name never fences its heir's producer.

        Raises:
            SettingsError: Another process has joined under this name, or records expired unread.
        """
        self._begin_ahead()
        waits = self._producer is None and bool(self._claims)
        if waits:
            wait_ms = min(wait_ms, int(_OPEN_AGAIN_S * 1000))
        poll = super().poll(records_max=records_max, wait_ms=wait_ms)
        if self._producer is None and self._claims and not self._open():
            self._gained |= poll.gained
            return Poll(lost=poll.lost)
        return poll

    def commit(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write the work of the claims that hold, all or none, and return them.

        Raises:
            WorkRefusedError: The log refused it twice; nothing was written, the claims still hold.
        """
        return self._commit(work)
