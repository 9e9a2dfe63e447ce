"""The projecting loop: from where the view is, in batches, poison left out."""

from __future__ import annotations

import threading

from headwater.contracts.records import Partition, Record
from headwater.core.messages import Meta
from headwater.errors import PoisonError
from headwater.runtime.projecting import Projecting


class Log:
    def __init__(self, values):
        self.values = values
        self.closed = False

    def partitions(self, topic):
        return 1

    def topic_id(self, topic):
        return "id"

    def read(self, starts):
        self.starts = dict(starts)
        self.at_end = False
        return self

    def poll(self, *, records_max, wait_ms):
        place = Partition("t", 0)
        found = [
            Record(partition=place, offset=n, time_ms=0, key=None, value=value)
            for n, value in enumerate(self.values)
            if n >= self.starts[place]
        ][:records_max]
        self.starts[place] += len(found)
        self.at_end = self.starts[place] >= len(self.values)
        return found

    def close(self):
        self.closed = True


class View:
    topics = ("t",)

    def __init__(self, start=0):
        self.start = start
        self.seen = []

    def resume(self):
        return {Partition("t", 0): self.start}

    def fold(self, batch):
        self.seen += [(at.offset, message) for at, _, message in batch]


def opener(record):
    if record.value == b"?":
        raise PoisonError("bad", "no")
    return Meta(id="", tenant="t"), record.value


def test_view_goes_on_from_where_it_is(caplog):
    """A record nobody can read still moves the view on, as nothing."""
    log, view = Log([b"a", b"?", b"c"]), View(start=1)
    loop = Projecting(log=log, projection=view, opener=opener)
    assert not loop.caught_up
    assert loop.step() == 2
    assert loop.caught_up
    assert view.seen == [(1, None), (2, b"c")]
    assert "left out of the view" in caplog.text
    assert loop.step() == 0


def test_run_folds_until_told_to_stop():
    """The reader is closed at the end."""
    log, view = Log([b"a"]), View()
    stop = threading.Event()
    view.fold = lambda batch: stop.set()
    Projecting(log=log, projection=view, opener=opener).run(stop)
    assert log.closed
