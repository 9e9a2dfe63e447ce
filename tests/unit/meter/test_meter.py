"""The meter: what a process did, as figures, each of them explained."""

from __future__ import annotations

import asyncio
import pathlib
import re
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

import headwater
from headwater import testing
from headwater.contracts.messages import Ask, Failed, ReplyTo
from headwater.core.effector import Attempt, Call, Effector, Safety, Verifier
from headwater.core.messages import Meta
from headwater.meter import LOOK_S, QUIET_S, Meter
from headwater.tools.effector import Tools
from headwater.tracing.spans import Silent

ROOT = pathlib.Path(__file__).parents[3]

app = headwater.App("shop")
small = app.model("small", "openai:gpt-5-mini")


@app.tool(effect="read")
async def look(what: str) -> str:
    if what == "broken":
        raise ValueError("no such thing")
    return what


@app.agent
async def shop(ctx: headwater.Context, what: str) -> str:
    try:
        await look(what)
    except headwater.ToolError as error:
        return str(error)
    return await small(what)


def figures(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in registry.collect()
        for sample in metric.samples
    }


def test_calls_are_counted_by_how_they_ended_with_what_they_took_and_cost():
    """Whoever pays sees it where the call is made; so does whoever waits for a tool that fails."""
    registry = CollectorRegistry()
    meter = Meter(registry, Silent())
    price = headwater.usd_per_million(input_usd=1, output_usd=2)
    app.models["small"].price = price

    async def play() -> None:
        parts = {"counted": meter.counted, "observer": meter}
        async with testing.App(app, models={small: "hi"}, parts=parts) as t:
            for what in ("seen", "broken"):
                await (await t.start(shop, what)).result()

    asyncio.run(play())
    found = figures(registry)
    assert found["headwater_call_seconds_count", "tool.tools", "look", "answered"] == 1
    assert found["headwater_call_seconds_count", "tool.tools", "look", "failed"] == 1
    assert found["headwater_call_seconds_count", "model", "small", "answered"] == 1
    read, wrote = (found["headwater_tokens_total", "small", way] for way in ("read", "written"))
    assert read > wrote == 1
    assert found["headwater_usd_total", "small"] == pytest.approx((read + 2 * wrote) / 1_000_000)
    assert found["headwater_turns_total", "runs.shop"] == 5


def _ask(name: str) -> tuple[Call, Ask, Attempt]:
    to = ReplyTo(topic="t", partition=0, run="r", number=1)
    call = Call(
        id="r/1", safety=Safety.READ, order_key="", not_after_ms=9, reply_to=to, meta=Meta(id="", tenant="t")
    )  # fmt: skip
    ask = Ask(
        run="r", number=1, name=name, arguments=b"", safety="read", not_after_ms=9, reply_to=to
    )

    async def progress(text: str) -> None:
        """Nobody follows."""

    return call, ask, Attempt(id="a", number=1, heartbeat=lambda state: None, progress=progress)


class Fails:
    """An effector that ends as it is told to."""

    name = "tool.tools"

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Failed:
        raise self.error


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (headwater.TransientError("away"), "away"),
        (asyncio.CancelledError(), "cut"),
        (KeyError("x"), "failed"),
    ],
)
def test_a_try_that_raises_is_counted_and_raises(error: BaseException, ended: str):
    """Figures change nothing of what happens."""
    registry = CollectorRegistry()
    counted = Meter(registry, Silent()).counted(Fails(error))
    assert not isinstance(counted, Verifier)
    with pytest.raises(type(error)):
        asyncio.run(counted.perform(*_ask("look")))
    assert figures(registry)["headwater_call_seconds_count", "tool.tools", "look", ended] == 1


def test_names_that_somebody_made_up_are_one_figure():
    """A request may name anything; figures of it would stay for good, one each."""
    registry = CollectorRegistry()
    counted: Effector = Meter(registry, Silent()).counted(Tools("tools", app.tools, deps=None))
    assert isinstance(counted, Verifier), "what can verify still can"
    for number in range(3):
        asyncio.run(counted.perform(*_ask(f"made-up-{number}")))
    counts = {
        key: value for key, value in figures(registry).items() if key[0].endswith("_seconds_count")
    }
    assert counts == {("headwater_call_seconds_count", "tool.tools", "unknown", "failed"): 3}


class Hangs:
    """An effector that says what it is told to say, and never answers."""

    name = "model"

    def __init__(self) -> None:
        self.speak: list[Attempt] = []

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Failed:
        self.speak.append(attempt)
        await asyncio.Event().wait()
        raise AssertionError("nothing sets it")


def _hanging(
    body: Callable[[Meter, list[float], list[Attempt], CollectorRegistry], Awaitable[None]],
    *names: str,
) -> None:
    """Have calls hang while a test goes on, with a clock of its own."""

    async def main() -> None:
        registry, clock, effector = CollectorRegistry(), [1_000.0], Hangs()
        meter = Meter(registry, Silent(), clock=lambda: clock[0])
        counted = meter.counted(effector)
        calls = [asyncio.create_task(counted.perform(*_ask(name))) for name in names]
        await asyncio.sleep(0)
        await body(meter, clock, effector.speak, registry)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert figures(registry)["headwater_quiet_call_seconds", "model"] == 0

    asyncio.run(main())


def test_a_provider_that_hangs_is_said_once_a_name_and_then_seldom(
    caplog: pytest.LogCaptureFixture,
):
    """Which call, for how long, and how many beside it; then a line a minute at most."""

    async def body(
        meter: Meter, clock: list[float], speak: list[Attempt], registry: CollectorRegistry
    ) -> None:
        said = []
        for _ in range(40):
            meter.look()
            lines = [record.getMessage() for record in caplog.records]
            said += [(round(clock[0]) - 1_000, line) for line in lines]
            caplog.clear()
            clock[0] += LOOK_S
        small = "model small, call r/1: it has said nothing for %d s, 1 more of model small for over 30 s"
        large = "model large, call r/1: it has said nothing for %d s"
        assert said == [(at, line % at) for at in (30, 60, 120, 180) for line in (small, large)]
        assert figures(registry)["headwater_quiet_call_seconds", "model"] == 40 * LOOK_S

    _hanging(body, "small", "small", "large")


@pytest.mark.parametrize("word", ["heartbeat", "progress", "none"])
def test_a_call_that_says_something_does_not_hang(caplog: pytest.LogCaptureFixture, word: str):
    """A heartbeat, or a piece of a streamed answer; the control says nothing."""

    async def body(
        meter: Meter, clock: list[float], speak: list[Attempt], registry: CollectorRegistry
    ) -> None:
        clock[0] += QUIET_S - 1
        if word == "heartbeat":
            speak[0].heartbeat("half")
        elif word == "progress":
            await speak[0].progress("It is")
        clock[0] += 1
        meter.look()
        quiet_s = figures(registry)["headwater_quiet_call_seconds", "model"]
        assert (quiet_s, len(caplog.records)) == ((QUIET_S, 1) if word == "none" else (1, 0))

    _hanging(body, "small")


def test_it_is_looked_for_until_the_process_stops(caplog: pytest.LogCaptureFixture):
    """Between two looks it waits."""

    async def body(
        meter: Meter, clock: list[float], speak: list[Attempt], registry: CollectorRegistry
    ) -> None:
        stop = asyncio.Event()
        following = asyncio.create_task(meter.follow(stop, look_s=0.001))
        await asyncio.sleep(0)
        assert caplog.records == []
        clock[0] += QUIET_S
        async with asyncio.timeout(120):
            while not caplog.records:  # noqa: ASYNC110 - a line in a log sets no event
                await asyncio.sleep(0)
        stop.set()
        await following

    _hanging(body, "small")


def test_load_is_read_when_it_is_asked_for():
    """Requests in hand are those at that moment."""
    registry = CollectorRegistry()
    meter = Meter(registry, Silent())
    load = [3]
    meter.watch("models", lambda: load[0])
    assert figures(registry)["headwater_calls_in_hand", "models"] == 3
    load[0] = 5
    assert figures(registry)["headwater_calls_in_hand", "models"] == 5


def test_every_figure_is_explained():
    """The page of figures has each that the code has, and no other."""
    code = "\n".join(file.read_text() for file in (ROOT / "services").rglob("*.py"))
    made = set(re.findall(r"(?:Counter|Gauge|Histogram)\(\s*\"(headwater_\w+)\"", code))
    page = (ROOT / "docs/how-to/observe.md").read_text()
    told = set(re.findall(r"^\| `(headwater_\w+?)(?:_total)?[`{]", page, re.MULTILINE))
    assert made == told
    assert len(made) > 8
