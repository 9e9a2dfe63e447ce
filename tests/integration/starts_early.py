"""A member that starts before its cluster does: `starts_early BOOTSTRAP TOPIC GROUP CALL_S`."""

from __future__ import annotations

import sys
import time

from headwater.log.kafka import KafkaConfig, KafkaLog

AWAY_CALLS = 3
"""For so many times as long as it waits for one answer none comes."""


def main(bootstrap: str, topic: str, group: str, call_s: str) -> None:
    """Poll until every partition was seen owned, and say so; before that, when an answer is overdue."""
    log = KafkaLog(KafkaConfig(bootstrap=bootstrap, call_s=float(call_s)))
    owner = log.own([topic], group=group, instance="early")
    asked_s = overdue_s = 0.0
    while not owner._unowned.settled:
        owner.poll(records_max=1, wait_ms=50)
        if owner._unowned._asked is not None and not asked_s:
            asked_s = time.monotonic()
        if asked_s and not overdue_s and time.monotonic() > asked_s + AWAY_CALLS * float(call_s):
            overdue_s = time.monotonic()
            sys.stdout.write("overdue\n")
            sys.stdout.flush()
    owner.close()
    log.close()
    sys.stdout.write("settled\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
