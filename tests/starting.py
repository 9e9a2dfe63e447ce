"""Starting brokers: a machine that is busy may take longer for that than a broker is given."""

from __future__ import annotations

from headwater.log.broker import Broker, BrokerError

STARTS_MAX = 4


def started(broker: Broker) -> str:
    """Start a broker, again and again if it does not come up in time; return its bootstrap."""
    for tries_left in reversed(range(STARTS_MAX)):
        try:
            return broker.start()
        except BrokerError:
            if not tries_left:
                raise
    raise AssertionError("the last try returns or raises")
