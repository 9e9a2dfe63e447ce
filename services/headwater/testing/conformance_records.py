"""What the port promises of records and readers."""

# ruff: noqa: PLR2004 - figures in tests are examples

from __future__ import annotations

import time

import pytest

from headwater.contracts.records import Draft, Partition, Record
from headwater.errors import PoisonError, SettingsError
from headwater.testing.conformance_world import World, put, read_all, read_until, values

CLOCKS_APART_MS = 60_000
"""How far the log's clock may be from ours, on a laptop."""


class RecordClaims:
    """Order, partitions, times, ids, limits, readers, compaction."""

    def test_records_of_one_partition_keep_their_order(self, world: World) -> None:
        """A partition is read in the order in which it was written, at the offsets it was given."""
        topic = world.topic()
        places = put(world.log, *(Draft(topic=topic, key=b"k", value=b"%d" % n) for n in range(50)))
        records = read_all(world.log, Partition(topic, 0))
        assert values(records) == [b"%d" % n for n in range(50)]
        assert [(record.partition, record.offset) for record in records] == places

    def test_a_record_comes_back_as_it_was_written(self, world: World) -> None:
        """Keys, values, tombstones and headers survive, repeated and null headers among them."""
        topic = world.topic()
        headers = (("a", b"1"), ("a", b"2"), ("b", None), ("c", b""))
        put(
            world.log,
            Draft(topic=topic, key=b"k", value=b"v", headers=headers, partition=0),
            Draft(topic=topic, key=b"k", value=None, partition=0),
            Draft(topic=topic, key=None, value=b"", partition=0),
        )
        records = read_all(world.log, Partition(topic, 0))
        assert [(record.key, record.value, record.headers) for record in records] == [
            (b"k", b"v", headers),
            (b"k", None, ()),
            (None, b"", ()),
        ]

    @pytest.mark.parametrize(
        ("key", "number"),
        # Murmur2 of org.apache.kafka.common.utils.UtilsTest, made positive, modulo 7.
        [
            (b"21", (-973932308 & 0x7FFFFFFF) % 7),
            (b"foobar", (-790332482 & 0x7FFFFFFF) % 7),
            (b"a-little-bit-long-string", (-985981536 & 0x7FFFFFFF) % 7),
            (b"a-little-bit-longer-string", (-1486304829 & 0x7FFFFFFF) % 7),
            (b"abc", (479470107 & 0x7FFFFFFF) % 7),
        ],
    )
    def test_a_key_goes_where_every_client_puts_it(
        self, world: World, key: bytes, number: int
    ) -> None:
        """The partition of a key is Java's, for appends as for commits."""
        topic, inbox = world.topic("keyed", partitions=7), world.topic()
        ((place, _),) = put(world.log, Draft(topic=topic, key=key, value=b"appended"))
        assert place == Partition(topic, number)
        world.committed(inbox, Draft(topic=topic, key=key, value=b"committed"))
        assert values(read_all(world.log, place)) == [b"appended", b"committed"]

    def test_a_named_partition_wins_over_the_key(self, world: World) -> None:
        """A draft that names its partition goes there, whatever its key."""
        topic = world.topic(partitions=3)
        places = put(
            world.log, *(Draft(topic=topic, key=b"k", value=b"v", partition=n) for n in range(3))
        )
        assert [place.number for place, _ in places] == [0, 1, 2]

    def test_time_is_the_logs_own_and_never_the_writers(self, world: World) -> None:
        """Records carry the time of their append, in order."""
        topic = world.topic()
        before_ms = time.time_ns() // 1_000_000
        put(world.log, *(Draft(topic=topic, key=b"k", value=b"%d" % n) for n in range(3)))
        times = [record.time_ms for record in read_all(world.log, Partition(topic, 0))]
        assert times == sorted(times)
        assert abs(times[0] - before_ms) < CLOCKS_APART_MS

    def test_a_recreated_topic_has_another_id(self, world: World) -> None:
        """An id names one life of a topic, so that ids derived in two lives differ."""
        topic = world.topic()
        first = world.log.topic_id(topic)
        assert first
        assert world.harness.log().topic_id(topic) == first
        world.harness.recreate(topic)
        assert world.harness.log().topic_id(topic) not in ("", first)

    def test_partitions_are_counted_and_an_unknown_topic_is_refused(self, world: World) -> None:
        """A topic that is not there stops the start instead of being made up."""
        assert world.log.partitions(world.topic(partitions=5)) == 5
        with pytest.raises(SettingsError, match="topics apply"):
            world.log.partitions(f"{world.harness.namespace}.nowhere")

    def test_a_partition_that_is_not_there_is_told_from_one_that_is(self, world: World) -> None:
        """What names it may be a stranger's."""
        topic = world.topic(partitions=2)
        places = [Partition(topic, n) for n in (0, 1, 2)]
        nowhere = Partition(f"{world.harness.namespace}.nowhere", 0)
        assert [world.log.has(place) for place in (*places, nowhere)] == [True, True, False, False]

    def test_a_log_that_is_there_answers(self, world: World) -> None:
        """Whoever asks whether a process can do its work is told so."""
        assert world.log.answers(10.0)

    def test_an_append_over_the_limit_is_poison_and_the_next_goes_on(self, world: World) -> None:
        """A record that can never be written says so instead of being tried for ever."""
        topic = world.topic(max_bytes=2_000)
        with pytest.raises(PoisonError) as refused:
            put(world.log, Draft(topic=topic, key=b"k", value=b"x" * 3_000))
        assert refused.value.code == "too-large"
        put(world.log, Draft(topic=topic, key=b"k", value=b"small"))
        assert values(read_all(world.log, Partition(topic, 0))) == [b"small"]

    def test_a_reader_starts_where_it_is_told(self, world: World) -> None:
        """A start is an offset; one before the first means the first."""
        topic = world.topic()
        place = Partition(topic, 0)
        put(world.log, *(Draft(topic=topic, key=b"k", value=b"%d" % n) for n in range(5)))
        assert values(read_until(world.log.read({place: 3}), 2)) == [b"3", b"4"]
        assert values(read_until(world.log.read({place: 0}), 5))[0] == b"0"

    def test_pairs_are_what_records_hold(self, world: World) -> None:
        """Keys and values alone, tombstones among them, and where reading goes on."""
        topic = world.topic(partitions=2)
        place, other = Partition(topic, 0), Partition(topic, 1)
        drafts = [
            Draft(topic=topic, key=b"k%d" % n, value=b"%d" % n, partition=0) for n in range(4)
        ]
        put(world.log, *drafts, Draft(topic=topic, key=b"k0", partition=0))
        put(world.log, Draft(topic=topic, value=b"5", partition=1))
        for places, count in (([place], 5), ([place, other], 6)):
            reader = world.log.read(dict.fromkeys(places, 0))
            keys: list[bytes] = []
            found: list[bytes | None] = []
            while not reader.at_end:
                more = reader.pairs(records_max=3, wait_ms=100)
                keys += more[0]
                found += more[1]
            assert len(keys) == len(found) == count
            pairs = [*zip(keys, found, strict=True)]
            mine = [pair for pair in pairs if pair[0]]
            assert mine == [*((draft.key, draft.value) for draft in drafts), (b"k0", None)]
            assert [value for key, value in pairs if not key] == [b"5"] * (count - 5)
            assert reader.next_offset(place) == 5
            reader.close()

    def test_a_reader_of_several_partitions_ends_when_all_have_ended(self, world: World) -> None:
        """Empty partitions, full ones and starts at the end are all read up to their ends."""
        topic = world.topic(partitions=4)
        put(
            world.log,
            *(Draft(topic=topic, key=b"k", value=b"%d" % n, partition=n % 2) for n in range(10)),
        )
        records = read_all(world.log, *(Partition(topic, n) for n in range(4)))
        for number in (0, 1):
            mine = [r.value for r in records if r.partition.number == number]
            assert mine == [b"%d" % n for n in range(number, 10, 2)]
        assert len(records) == 10
        done = world.log.read({Partition(topic, 0): 5, Partition(topic, 2): 0})
        assert list(done.poll(records_max=10, wait_ms=100)) == []
        assert done.at_end

    def test_the_end_of_a_reader_is_the_end_it_was_opened_at(self, world: World) -> None:
        """What is appended later is delivered, but a restore does not chase it."""
        topic = world.topic()
        put(world.log, Draft(topic=topic, key=b"k", value=b"early"))
        reader = world.log.read({Partition(topic, 0): 0})
        ends = [reader.at_end]
        put(world.log, Draft(topic=topic, key=b"k", value=b"late"))
        records = read_until(reader, 2)
        assert values(records) == [b"early", b"late"]
        ends.append(reader.at_end)
        assert ends == [False, True]
        put(world.log, Draft(topic=topic, key=b"k", value=b"later"))
        assert reader.at_end
        assert values(read_until(reader, 1)) == [b"later"]

    def test_a_reader_takes_its_ends_anew(self, world: World) -> None:
        """What was appended since the reader was opened is before the end from then on."""
        topic, other = world.topic(), world.topic()
        place, empty = Partition(topic, 0), Partition(other, 0)
        put(world.log, Draft(topic=topic, key=b"k", value=b"early"))
        reader = world.log.read({place: 0, empty: 0})
        assert values(read_until(reader, 1)) == [b"early"]
        put(world.log, *(Draft(topic=topic, key=b"k", value=b"%d" % n) for n in range(3)))
        ends = [reader.at_end]
        reader.until_now()
        ends.append(reader.at_end)
        assert ends == [True, False]
        found: list[Record] = []
        while not reader.at_end:
            found += reader.poll(records_max=2, wait_ms=100)
        assert values(found) == [b"0", b"1", b"2"]
        reader.close()

    def test_compaction_keeps_the_newest_of_each_key(self, world: World) -> None:
        """A compacted topic forgets what was overwritten and what was deleted, and nothing else."""
        topic = world.topic(compacted=True)
        drafts = [
            (b"a", b"1"),
            (b"b", b"1"),
            (b"a", b"2"),
            (b"c", b"1"),
            (b"b", None),
            (b"d", b"9"),
        ]
        put(world.log, *(Draft(topic=topic, key=key, value=value) for key, value in drafts))
        world.harness.compact(topic)
        records = read_all(world.log, Partition(topic, 0))
        kept = {record.key: record.value for record in records if record.value is not None}
        assert kept == {b"a": b"2", b"c": b"1", b"d": b"9"}
        assert [r.offset for r in records if r.value is not None] == [2, 3, 5]
