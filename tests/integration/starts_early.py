"""A member that starts before its cluster does: `starts_early BOOTSTRAP TOPIC GROUP CALL_S`."""

from __future__ import annotations

import sys

from headwater.log.kafka import KafkaConfig, KafkaLog


def main(bootstrap: str, topic: str, group: str, call_s: str) -> None:
    """Poll until every partition was seen owned, and say so."""
    log = KafkaLog(KafkaConfig(bootstrap=bootstrap, call_s=float(call_s)))
    owner = log.own([topic], group=group, instance="early")
    while not owner._unowned.settled:
        owner.poll(records_max=1, wait_ms=50)
    owner.close()
    log.close()
    sys.stdout.write("settled\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
