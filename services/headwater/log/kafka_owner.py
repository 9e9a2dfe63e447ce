"""A decider's membership on Kafka: outputs and offsets are one transaction, or none of it happened."""

from __future__ import annotations

from collections.abc import Sequence

from headwater.log.kafka_transactor import KafkaTransactor
from headwater.log.port import Claim, Poll, Work


class KafkaOwner(KafkaTransactor):
    """Commits work; see `log.port.Owner`."""

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait for news; without a producer nothing is gained, and so nothing delivered.

        Raises:
            SettingsError: Another process has joined under this name, or records expired unread.
        """
        self._begin_ahead()
        return self._poll_opened(records_max=records_max, wait_ms=wait_ms)

    def commit(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write the work of the claims that hold, all or none, and return them.

        Raises:
            WorkRefusedError: The log refused it twice; nothing was written, the claims still hold.
        """
        return self._commit(work)
