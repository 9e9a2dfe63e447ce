"""The group's generation, as a member knows it: what its commits carry."""

from __future__ import annotations

import struct

from confluent_kafka import Consumer

_MAGIC = b"CGMDv2:"


class Generation:
    """What a member's client said of its group.

    Asking the client takes a thread of its own 70 us. So it is asked again only where callbacks have
    run since: a generation begins with some. What an older one carries is refused by the group.

    Args:
        consumer: The client.
        silent: Whether generations begin without a callback too, as in KIP-848.
    """

    def __init__(self, consumer: Consumer, *, silent: bool) -> None:
        self._consumer = consumer
        self._silent = silent
        self._told_in = -1
        self._moved = False
        self.metadata = consumer.consumer_group_metadata()
        """As of the last poll: a later one could be of a generation whose revocations we have not seen."""

    @property
    def number(self) -> int:
        """The generation; negative while we are no member."""
        return _number(self.metadata)

    @property
    def told(self) -> bool:
        """Whether we know what is ours in it: it begins before its assignment arrives."""
        return self._silent or self._told_in == self.number

    def moved(self) -> None:
        """Take note that something was taken from us."""
        self._moved = True

    def tell(self) -> None:
        """Take note that we were told what is ours."""
        self._moved = True
        self._told_in = _number(self._consumer.consumer_group_metadata())

    def polled(self) -> None:
        """Take over what a poll changed, once its callbacks ran."""
        if self._moved or self._silent:
            self.look()

    def look(self) -> None:
        """Ask the client."""
        self._moved = False
        self.metadata = self._consumer.consumer_group_metadata()


def _number(metadata: bytes) -> int:
    """Return the generation in a client's group metadata.

    librdkafka serialises it first, `rd_kafka_consumer_group_metadata_write`.
    """
    assert metadata.startswith(_MAGIC), "librdkafka writes its metadata in another form"
    (generation,) = struct.unpack_from("=i", metadata, len(_MAGIC))
    return int(generation)
