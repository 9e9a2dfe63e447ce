"""What a cluster lacks of what an app needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import pytest

from headwater import provisioning
from headwater.errors import SettingsError
from headwater.layout import Need
from headwater.provisioning import Action, config_of
from headwater.settings import Kafka


@dataclasses.dataclass
class Topic:
    """A topic of the fake."""

    partitions: int
    replication: int
    config: dict[str, str]


class Fake:
    """A cluster in memory, as strict as a broker about what is there."""

    def __init__(self, brokers: int = 1) -> None:
        self._brokers = brokers
        self.there: dict[str, Topic] = {}
        self.offsets: set[tuple[str, str, int]] = set()

    def brokers(self) -> int:
        return self._brokers

    def topics(self, names: Iterable[str]) -> Mapping[str, Topic]:
        return {name: self.there[name] for name in names if name in self.there}

    def create(
        self, name: str, *, partitions: int, replication: int, config: Mapping[str, str]
    ) -> None:
        assert name not in self.there
        self.there[name] = Topic(partitions, replication, dict(config))

    def grow(self, name: str, partitions: int) -> None:
        assert partitions > self.there[name].partitions
        self.there[name].partitions = partitions

    def configure(self, name: str, config: Mapping[str, str]) -> None:
        self.there[name].config.update(config)

    def begin_group(self, group: str, topics: Mapping[str, int]) -> int:
        before = len(self.offsets)
        for topic, count in topics.items():
            assert self.there[topic].partitions >= count
            self.offsets |= {(group, topic, number) for number in range(count)}
        return len(self.offsets) - before

    def missing_offsets(self, group: str, topics: Mapping[str, int]) -> int:
        return sum(
            (group, topic, number) not in self.offsets
            for topic, count in topics.items()
            for number in range(count)
        )


NEEDS = [
    Need(name="hw.inbox.admission.v1", partitions=2, fixed=True),
    Need(name="hw.state.admission.v1", partitions=2, compacted=True, fixed=True),
    Need(name="hw.inbox.triage.v1", partitions=3),
    Need(name="hw.state.runs.triage.v1", partitions=3, compacted=True),
    Need(name="hw.evt.tokens.v1", partitions=1, retention_ms=600_000),
]
GROUPS = {"hw.admission": ["hw.inbox.admission.v1"], "hw.runs.triage": ["hw.inbox.triage.v1"]}


def give(cluster: Fake, needs: list[Need] = NEEDS) -> list[provisioning.Change]:
    changes = provisioning.plan(cluster, needs, GROUPS)
    for change in changes:
        provisioning.apply(cluster, change)
    return changes


def test_an_empty_cluster_is_given_everything_once() -> None:
    """Topics with the settings headwater relies on, then first offsets; a second plan is empty."""
    cluster = Fake()
    changes = give(cluster)
    assert [change.action for change in changes] == [Action.CREATE] * 5 + [Action.BEGIN] * 2
    assert provisioning.plan(cluster, NEEDS, GROUPS) == []
    provisioning.verify(cluster, NEEDS, GROUPS)
    assert {topic.config["message.timestamp.type"] for topic in cluster.there.values()} == {
        "LogAppendTime"
    }
    assert cluster.there["hw.state.runs.triage.v1"].config["cleanup.policy"] == "compact"
    assert cluster.there["hw.evt.tokens.v1"].config["retention.ms"] == "600000"
    assert len(cluster.offsets) == 5


@pytest.mark.parametrize(
    ("brokers", "replicas", "insync"), [(1, 1, None), (2, 2, None), (5, 3, "2")]
)
def test_new_topics_have_three_replicas_where_there_are_brokers(
    brokers: int, replicas: int, insync: str | None
) -> None:
    """With three replicas a write needs two, so that one broker can be away."""
    cluster = Fake(brokers)
    give(cluster)
    topic = cluster.there["hw.inbox.triage.v1"]
    assert topic.replication == replicas
    assert topic.config.get("min.insync.replicas") == insync


def test_an_inbox_grows_with_its_state_and_new_first_offsets() -> None:
    """A state partition has the number of its inbox partition; a group reads all there are."""
    cluster = Fake()
    give(cluster)
    cluster.grow("hw.inbox.triage.v1", 7)
    changes = give(cluster)
    assert [(change.action, change.name) for change in changes] == [
        (Action.GROW, "hw.state.runs.triage.v1"),
        (Action.BEGIN, "hw.runs.triage"),
    ]
    assert cluster.there["hw.state.runs.triage.v1"].partitions == 7
    assert cluster.missing_offsets("hw.runs.triage", {"hw.inbox.triage.v1": 7}) == 0


def test_topics_whose_keys_map_to_partitions_never_grow() -> None:
    """Growth of admission would send a tenant to a partition without its rows."""
    cluster = Fake()
    give(cluster)
    more = [dataclasses.replace(need, partitions=4) if need.fixed else need for need in NEEDS]
    changes = provisioning.plan(cluster, more, GROUPS)
    assert {change.action for change in changes} == {Action.REFUSED}
    with pytest.raises(SettingsError, match=r"hw\.inbox\.admission\.v1: 2 to 4 partitions"):
        provisioning.apply(cluster, changes[0])
    assert cluster.there["hw.inbox.admission.v1"].partitions == 2


def test_a_setting_that_drifted_is_put_back_and_the_others_left() -> None:
    """Only what headwater relies on is changed; a larger record limit suffices."""
    cluster = Fake()
    give(cluster)
    topic = cluster.there["hw.inbox.triage.v1"]
    topic.config |= {
        "message.timestamp.type": "CreateTime",
        "max.message.bytes": "9999999",
        "segment.ms": "5",
    }
    (change,) = give(cluster)
    assert (change.action, dict(change.config)) == (
        Action.CONFIGURE,
        {"message.timestamp.type": "LogAppendTime"},
    )
    assert topic.config["segment.ms"] == "5"
    assert topic.config["max.message.bytes"] == "9999999"


def test_a_role_refuses_to_join_a_cluster_that_lacks_something() -> None:
    """A wrong cluster is a message and not an incident; it names the first things and the command."""
    with pytest.raises(SettingsError) as refused:
        provisioning.verify(Fake(), NEEDS, GROUPS)
    words = str(refused.value)
    assert "hw.inbox.admission.v1: create (2 partitions, 1 replica)" in words
    assert "and 4 more" in words
    assert "headwater topics apply" in words


def test_lost_offsets_stop_the_start() -> None:
    """A group without offsets would begin anywhere; it is never `earliest` by itself."""
    cluster = Fake()
    give(cluster)
    cluster.offsets.discard(("hw.runs.triage", "hw.inbox.triage.v1", 1))
    with pytest.raises(
        SettingsError, match=r"hw\.runs\.triage: begin \(first offsets in 1 partition"
    ):
        provisioning.verify(cluster, NEEDS, GROUPS)


def test_members_join_by_the_protocol_that_is_set():
    """KIP-848 is for those who ask for it: the broker then says how long a session is."""
    assert "group.protocol" not in config_of(Kafka()).member("g", "i")
    member = config_of(Kafka(group_protocol="consumer")).member("g", "i")
    assert member["group.protocol"] == "consumer"
    assert "session.timeout.ms" not in member
