"""Suspects and the guard of calls, on the log in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import headwater
from headwater.assembly import Parts, Platform
from headwater.contracts.ctl import Suspect
from headwater.contracts.messages import Ask, Drain, ReplyTo
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.effector import Attempt, Call, Done, Safety, occupying
from headwater.core.messages import Meta
from headwater.durable.failure import ToldError
from headwater.errors import ProcessKillerError
from headwater.log.local import LocalLog
from headwater.runtime.apart import DiedError
from headwater.runtime.guarding import Guarded, Plain
from headwater.runtime.lines import Perform
from headwater.runtime.posts import Accusation, Kind, LeftError, Post, Posts
from headwater.runtime.retrying import AbandonedError
from headwater.runtime.suspects import DEATHS_KEPT, Suspects

pytestmark = pytest.mark.anyio
TOPIC = "hw.req.tool.tools.v1"
PLACE = Partition(TOPIC, 0)


@pytest.fixture
def platform() -> Platform:
    app = headwater.App("small")

    @app.tool(effect="read")
    async def look(card: str) -> str:
        return card

    @app.agent
    async def triage(ctx: headwater.Context, claim: str) -> str:
        return claim

    log = LocalLog()
    platform = Platform(app, log, Parts(clock=lambda: 0, instance="tools-1"))
    for need in platform.layout.needs(partitions=1, coordinators=1):
        log.create(need.name, partitions=need.partitions)
    return platform


def known(platform: Platform) -> Suspects:
    suspects = platform.suspects(deaths_max=3)
    suspects.restore()
    return suspects


def accusation(offset: int = 7, *, alone: bool = True, topic: str = TOPIC) -> Accusation:
    post = Post(
        kind=Kind.CALL, partition=Partition(topic, 0), offset=offset, what=f"run/{offset}",
        since_ms=0, serial=1,
    )  # fmt: skip
    return Accusation(post=post, alone=alone, cause="signal 11 (SIGSEGV)")


def record(offset: int = 7) -> Record:
    return Record(partition=PLACE, offset=offset, time_ms=0, key=b"k", value=b"v", headers=())


async def test_an_accusation_is_known_to_whoever_starts_later(platform: Platform) -> None:
    """A death is in the log before the next process joins, whoever that is."""
    first = known(platform)
    assert first.find(record()) is None
    await first.accuse([accusation(), accusation(8, alone=False)])
    later = known(platform)
    found = later.find(record())
    assert isinstance(found, Suspect)
    assert (found.what, found.alone) == ("run/7", 1)
    assert found.deaths == ("tools-1, alone: signal 11 (SIGSEGV)",)
    among = later.find(record(8))
    assert among is not None
    assert among.alone == 0
    assert len(later) == 2


async def test_the_third_death_alone_makes_a_killer(platform: Platform) -> None:
    """Two may be an accident; the words say which deaths there were."""
    suspects = known(platform)
    await suspects.accuse([accusation(alone=False), accusation()])
    assert suspects.check(record()) is not None
    assert await suspects.died(record(), "signal 9 (SIGKILL)")
    assert not await suspects.died(record(), "signal 9 (SIGKILL)")
    with pytest.raises(ProcessKillerError, match="3 processes died of it alone") as killer:
        known(platform).check(record())
    assert (killer.value.code, killer.value.name) == ("process-killer", "ProcessKiller")
    assert "among others" in str(killer.value)


async def test_one_survival_clears(platform: Platform) -> None:
    """What was cleared is cleared for every process, and its next death is its first."""
    suspects, other = known(platform), known(platform)
    await suspects.accuse([accusation()])
    await suspects.clear(record())
    await suspects.clear(record())
    assert suspects.find(record()) is None
    assert known(platform).find(record()) is None
    assert await other.died(record(), "nobody suspected it")
    assert other.find(record()) is None


async def test_what_others_write_is_followed(platform: Platform) -> None:
    """A partition that moves takes its suspects along."""
    mine, other = known(platform), known(platform)
    await other.accuse([accusation()])
    await other.died(record(), "signal 11")
    await mine.accuse([accusation(9)])
    _follow(mine)
    found = mine.find(record())
    assert found is not None
    assert found.alone == 2
    await other.clear(record())
    _follow(mine)
    assert mine.find(record()) is None
    assert mine.find(record(9)) is not None


async def test_what_is_read_late_does_not_undo_what_was_written(platform: Platform) -> None:
    """A process reads its own words again, older ones before newer ones."""
    suspects = known(platform)
    await suspects.accuse([accusation()])
    await suspects.died(record(), "signal 11")
    _follow(suspects)
    found = suspects.find(record())
    assert found is not None
    assert found.alone == 2


async def test_topics_of_another_life_accuse_nobody(platform: Platform) -> None:
    """An offset of a topic that was made anew is another record."""
    suspects = known(platform)
    await suspects.accuse([accusation(topic="hw.req.tool.gone.v1")])
    assert len(suspects) == 0
    stale = Suspect(topic=TOPIC, topic_id="another", partition=0, offset=7, what="run/7", alone=3)
    gone = Suspect(topic="hw.gone.v1", topic_id="x", partition=0, offset=7, what="run/7", alone=3)
    for one in (stale, gone):
        await _append(platform, platform.codec.encode(one))
    await _append(platform, b"no suspect of ours")
    await _append(platform, platform.codec.encode(Drain(run="r")))
    assert len(known(platform)) == 0


async def test_deaths_are_named_up_to_a_bound(platform: Platform) -> None:
    """A suspect that never is alone does not grow for ever."""
    suspects = known(platform)
    for _ in range(2 * DEATHS_KEPT):
        await suspects.accuse([accusation(alone=False)])
    found = suspects.find(record())
    assert found is not None
    assert len(found.deaths) == DEATHS_KEPT


class Trials:
    """Stands in for cells: dies, answers or raises as it is told."""

    def __init__(self, deaths: int = 0, result: Any = None) -> None:
        self.deaths = deaths
        self.result = result if result is not None else Done(value=b"apart")
        self.works: list[Perform] = []
        self.alone: list[bool] = []
        self.stopped = False

    async def among(
        self,
        work: Callable[[int], Any],
        blame: Callable[[str], Awaitable[bool]],
        *,
        attempt: Attempt,
        alone: bool,
    ) -> Any:
        self.alone.append(alone)
        while True:
            self.works.append(work(1))
            if not self.deaths:
                break
            self.deaths -= 1
            if not await blame("signal 11"):
                raise DiedError("signal 11")
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def stop(self) -> None:
        self.stopped = True


class Hands:
    """An effector that counts."""

    name = "tool.tools"

    def __init__(self) -> None:
        self.performed = self.verified = 0
        self.seen: list[Post] = []
        self.posts: Posts | None = None
        self.occupy: Callable[[], Callable[[], None]] | None = None

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done:
        self.performed += 1
        if self.posts is not None:
            occupy = self.occupy = occupying.get()
            assert occupy is not None
            leave = occupy()
            occupy()()
            self.seen += self.posts.used()
            threading.Thread(target=leave).start()
        return Done(value=b"here")

    async def verify(self, call: Call, ask: Ask, attempt: Attempt) -> None:
        self.verified += 1


def terms(safety: Safety = Safety.READ) -> tuple[Call, Ask, Attempt]:
    to = ReplyTo(topic="hw.inbox.triage.v1", partition=0, run="run", number=7)
    meta = Meta(id="m", tenant="t")
    call = Call(id="run/7", safety=safety, order_key="", not_after_ms=1, reply_to=to, meta=meta)
    ask = Ask(
        run="run", number=7, name="look", arguments=b"", safety=safety.value, order_key="",
        not_after_ms=1, reply_to=to,
    )  # fmt: skip

    async def progress(text: str) -> None:
        raise AssertionError(text)

    return call, ask, Attempt(id="a", number=1, heartbeat=lambda _: None, progress=progress)


def guarded(suspects: Suspects, trials: Any) -> tuple[Guarded, Hands]:
    hands, posts = Hands(), Posts(4)
    hands.posts = posts
    return Guarded(hands, posts=posts, suspects=suspects, apart=trials), hands


async def test_whoever_is_not_suspected_is_at_a_post_here(platform: Platform) -> None:
    """Nothing is asked of anybody else, and the post is left."""
    doing, hands = guarded(known(platform), Trials())
    assert await doing.perform(record(), *terms()) == Done(value=b"here")
    [post] = hands.seen
    assert (post.what, post.place) == ("run/7", f"{TOPIC}[0]@7")
    assert await doing.verify(record(), *terms()) is None
    assert hands.posts is not None
    assert hands.verified == 1


@pytest.mark.parametrize("verify", [False, True])
async def test_a_suspect_is_tried_apart_and_cleared(platform: Platform, verify: bool) -> None:
    """It never runs here, and one survival is enough."""
    suspects = known(platform)
    await suspects.accuse([accusation(alone=False)])
    trials = Trials()
    doing, hands = guarded(suspects, trials)
    what = doing.verify if verify else doing.perform
    assert await what(record(), *terms()) == Done(value=b"apart")
    assert (hands.performed, hands.verified) == (0, 0)
    assert trials.works[0].verify is verify
    assert trials.alone == [False]
    assert suspects.find(record()) is None


async def test_a_killer_is_not_run_again(platform: Platform) -> None:
    """Its third death alone is its last, here and wherever its record goes."""
    suspects = known(platform)
    await suspects.accuse([accusation()])
    trials = Trials(deaths=9)
    doing, hands = guarded(suspects, trials)
    with pytest.raises(ProcessKillerError):
        await doing.perform(record(), *terms())
    assert len(trials.works) == 2
    assert trials.alone == [True]
    with pytest.raises(ProcessKillerError):
        await doing.perform(record(), *terms())
    assert len(trials.works) == 2
    assert hands.performed == 0


async def test_an_irreversible_suspect_is_made_once_at_most(platform: Platform) -> None:
    """A process that died in the middle of it leaves a doubt, which `verify` or a person settles."""
    suspects = known(platform)
    await suspects.accuse([accusation(alone=False)])
    trials = Trials(deaths=1)
    doing, _ = guarded(suspects, trials)
    with pytest.raises(ToldError, match="in the middle of it"):
        await doing.perform(record(), *terms(Safety.IRREVERSIBLE))
    assert len(trials.works) == 1
    trials.deaths = 1
    assert await doing.verify(record(), *terms(Safety.IRREVERSIBLE)) == Done(value=b"apart")
    assert len(trials.works) == 3


async def test_no_thread_begins_after_its_call_was_answered(platform: Platform) -> None:
    """One that waited for its turn meanwhile would work for nobody, and nobody would watch it."""
    doing, hands = guarded(known(platform), Trials())
    await doing.perform(record(), *terms())
    assert hands.occupy is not None
    with pytest.raises(LeftError):
        hands.occupy()


async def test_an_error_is_a_survival_and_a_stop_is_none(platform: Platform) -> None:
    """Whatever a suspect raises, its process lives; whoever stops leaves it suspected."""
    suspects = known(platform)
    await suspects.accuse([accusation()])
    doing, _ = guarded(suspects, Trials(result=AbandonedError()))
    with pytest.raises(AbandonedError):
        await doing.perform(record(), *terms())
    assert suspects.find(record()) is not None
    trials = Trials(result=ToldError("bank.Refused", "no"))
    doing, _ = guarded(suspects, trials)
    with pytest.raises(ToldError):
        await doing.perform(record(), *terms())
    assert suspects.find(record()) is None
    doing.stop()
    assert trials.stopped


async def test_control_without_a_guard_a_killer_runs_in_the_process_of_all(
    platform: Platform,
) -> None:
    """Control: whoever makes calls plainly makes those of suspects too."""
    suspects = known(platform)
    await suspects.accuse([accusation()] * 3)
    hands = Hands()
    plain = Plain(hands)
    assert await plain.perform(record(), *terms()) == Done(value=b"here")
    assert await plain.verify(record(), *terms()) is None
    plain.stop()
    assert hands.performed == 1


def _follow(suspects: Suspects) -> None:
    """Read what there is, as the thread would."""
    assert suspects._reader is not None
    while found := suspects._reader.poll(records_max=100, wait_ms=0):
        suspects._take(found)


async def _append(platform: Platform, value: bytes) -> None:
    topic = platform.names.ctl("suspects")
    await platform.log.append(Draft(topic=topic, key=b"k", value=value, partition=0))


async def test_following_ends_when_it_is_told() -> None:
    """A thread that stops closes what it reads."""

    class Still:
        closed = False
        at_end = True

        def poll(self, **_: int) -> list[Record]:
            stop.set()
            return []

        def close(self) -> None:
            self.closed = True

    class Log:
        def read(self, _: object) -> Still:
            return reader

    stop, reader = threading.Event(), Still()
    suspects = Suspects(
        Log(),
        topic="t",
        envelope=None,
        instance="i",
        retrying=None,  # type: ignore[arg-type] # none is asked
    )
    suspects.restore()
    await asyncio.to_thread(suspects.follow, stop)
    assert reader.closed
