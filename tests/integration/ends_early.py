"""A member that ends while an assignment waits to be told: `ends_early BOOTSTRAP NAME [WITHOUT]`.

A process of its own: one that stands does so inside the client, and holds the interpreter's lock, so that
nothing in it can end it. It ends when it is written a line. `WITHOUT` takes a protection out: the `poll`
before the end, or the `guard` that has whoever is told while it ends not ask.
"""

from __future__ import annotations

import sys
from typing import Any

from confluent_kafka import Consumer

from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_owner import KafkaOwner


class Untold:
    """A client that tells nothing when it is polled."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    def poll(self, _: float) -> None:
        """Tell nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


class Asking(KafkaOwner):
    """An owner that never takes itself for closed."""

    _closed = property(lambda _: False, lambda *_: None)


def main(bootstrap: str, own: str, without: str = "") -> None:
    """Join, and end without a poll."""
    log = KafkaLog(KafkaConfig(bootstrap=bootstrap))
    owner: Any = log.own([f"{own}.inbox"], group=f"{own}.group", instance="a")
    sys.stdin.readline()  # its client joins by itself; nobody polls
    if without == "poll":
        owner._consumer = Untold(owner._consumer)
    elif without == "guard":
        owner.__class__ = Asking
    owner.close()
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
