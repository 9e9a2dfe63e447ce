"""A member that dies the moment it has given partitions up: `half_given BOOTSTRAP TOPIC GROUP INSTANCE`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_owner import KafkaOwner

SESSION_MS = 120_000
"""Longer than whoever comes back under its name takes for that."""


class Mortal(KafkaOwner):
    """Dies between giving partitions up and joining anew."""

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        super()._on_revoke(consumer, partitions)
        os.kill(os.getpid(), signal.SIGKILL)


class MortalLog(KafkaLog):
    """A cluster whose owners die so."""

    owner = Mortal


def main(bootstrap: str, topic: str, group: str, instance: str) -> None:
    """Own all there is, say so, and poll until it is asked to give some up."""
    log = MortalLog(KafkaConfig(bootstrap=bootstrap, session_ms=SESSION_MS))
    owner = log.own([topic], group=group, instance=instance)
    said = False
    while True:
        owner.poll(records_max=1, wait_ms=50)
        if len(owner._claims) == log.partitions(topic) and not said:
            sys.stdout.write("owns all\n")
            sys.stdout.flush()
            said = True


if __name__ == "__main__":
    main(*sys.argv[1:])
