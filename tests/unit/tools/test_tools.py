"""The tools effector: functions run for calls, with their deps, and whatever they do wrong."""

from __future__ import annotations

import asyncio
import datetime
import threading

import pytest

import headwater
from headwater.assembly import Parts, Platform
from headwater.contracts.messages import Ask, Failed, ReplyTo
from headwater.core.effector import Attempt, Call, Done, Safety
from headwater.core.messages import Meta
from headwater.errors import NotDone, PoisonError, TransientError
from headwater.log.local import LocalLog
from headwater.tools.effector import Tools

REPLY_TO = ReplyTo(topic="in", partition=0, run="r", number=1)
DEADLINE_MS = 1_900_000_000_000


@pytest.fixture
def app():
    return headwater.App("bank")


def run(app, tool, deps=None, said=None, **kwargs):
    """Perform one call of a declared tool."""
    tools = Tools(tool.service, {name: t for name, t in app.tools.items()}, deps)  # noqa: C416 - a copy
    ask = asking(tool.name, tool.parameters.encode(kwargs))
    return asyncio.run(perform(tools, ask, said))


def asking(name, arguments=b""):
    return Ask(
        run="desk.0.r",
        number=1,
        name=name,
        arguments=arguments,
        safety="read",
        not_after_ms=DEADLINE_MS,
        reply_to=REPLY_TO,
    )


async def perform(tools, ask, said=None):
    said = [] if said is None else said
    call = Call(
        id="desk.0.r/1",
        safety=Safety.READ,
        order_key="",
        not_after_ms=ask.not_after_ms,
        reply_to=REPLY_TO,
        meta=Meta(id="m", tenant="t", actor="ana"),
    )

    async def progress(text):
        said.append(("progress", text, threading.current_thread()))

    attempt = Attempt(
        id="a",
        number=2,
        heartbeat=lambda state: said.append(("beat", state, threading.current_thread())),
        progress=progress,
        last_state="page 3",
    )
    return await tools.perform(call, ask, attempt)


def test_a_tool_is_run_with_its_arguments_and_its_result_encoded(app):
    """Arguments and result cross as Avro of the declared types; defaults are filled in."""

    @app.tool(effect="read")
    async def add(left: int, right: int = 40) -> int:
        return left + right

    result = run(app, add, left=2, right=40)
    assert isinstance(result, Done)
    assert add.decode_result(result.value) == 42


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_tool_is_told_of_its_call(app, kind):
    """Deps, idempotency key, run, actor, deadline, attempt, state; async or in a thread."""
    seen, said, here = [], [], threading.current_thread()

    if kind == "async":

        @app.tool(effect="write")
        async def pay(call: headwater.Call[dict], amount: int) -> bool:
            seen.append((call, threading.current_thread()))
            call.heartbeat("page 4")
            await call.progress("half")
            return True
    else:

        @app.tool(effect="write")
        def pay(call: headwater.Call[dict], amount: int) -> bool:
            seen.append((call, threading.current_thread()))
            call.heartbeat("page 4")
            call.progress("half")
            return True

    assert isinstance(run(app, pay, deps={"db": 1}, said=said, amount=5), Done)
    ((call, thread),) = seen
    assert call.deps == {"db": 1}
    assert call.idempotency_key == "desk.0.r/1"
    assert (call.run, call.actor, call.attempt, call.last_state) == ("desk.0.r", "ana", 2, "page 3")
    assert call.deadline == datetime.datetime.fromtimestamp(DEADLINE_MS / 1000, datetime.UTC)
    assert (thread is here) == (kind == "async")
    assert [(what, words) for what, words, _ in said] == [("beat", "page 4"), ("progress", "half")]
    assert {where for _, _, where in said} == {here}, "the loop's own thread is told"


def test_a_sync_tool_does_not_hold_the_others(app):
    """Two sync tools that wait for one another both end."""
    both = threading.Barrier(2, timeout=60)

    @app.tool(effect="read")
    def meet() -> bool:
        both.wait()
        return True

    async def scene():
        tools = Tools("default", {"meet": meet})
        ask = asking("meet", meet.parameters.encode({}))
        return await asyncio.gather(perform(tools, ask), perform(tools, ask))

    assert all(isinstance(result, Done) for result in asyncio.run(scene()))


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_tool_that_runs_out_of_what_it_iterates_over_fails(app, kind):
    """No future takes a `StopIteration`: without another error around it the call would never end."""
    if kind == "async":

        @app.tool(effect="read")
        async def first() -> str:
            return next(iter([]))
    else:

        @app.tool(effect="read")
        def first() -> str:
            return next(iter([]))

    async def scene():
        tools = Tools("default", {"first": first})
        await asyncio.wait_for(perform(tools, asking("first", first.parameters.encode({}))), 60)

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        asyncio.run(scene())


def test_a_tool_that_takes_too_long_is_ended(app):
    """`timeout_s` bounds one try; what it wrote is not undone. The control has no limit."""
    ended = []

    async def slow(limit: bool) -> bool:
        try:
            await asyncio.sleep(0 if not limit else 60)
        except asyncio.CancelledError:
            ended.append(limit)
            raise
        return True

    limited = app.tool(effect="write", timeout_s=0.01, name="limited")(slow)
    free = app.tool(effect="write", name="free")(slow)
    result = run(app, limited, limit=True)
    assert isinstance(result, Failed)
    assert result.error == "ToolTimeout"
    assert "limited" in result.detail
    assert ended == [True]
    assert isinstance(run(app, free, limit=False), Done)


def test_a_tools_own_timeout_is_its_error(app):
    """A `TimeoutError` of the tool's own is not the limit's."""

    @app.tool(effect="read", timeout_s=60)
    async def ping() -> bool:
        raise TimeoutError("the other side")

    with pytest.raises(TimeoutError, match="the other side"):
        run(app, ping)


@pytest.mark.parametrize("error", [TransientError("away"), ValueError("no"), NotDone("refused")])
def test_what_a_tool_raises_reaches_the_loop(app, error):
    """The loop tries again, or answers."""

    @app.tool(effect="read")
    async def fail() -> bool:
        raise error

    with pytest.raises(type(error)):
        run(app, fail)


def test_an_unknown_tool_is_answered_with_those_there_are(app):
    """The answer names the known ones."""

    @app.tool(effect="read")
    async def known() -> bool:
        return True

    result = asyncio.run(perform(Tools("default", {"known": known}), asking("unknown")))
    assert isinstance(result, Failed)
    assert "'unknown'" in result.detail
    assert "known" in result.detail
    assert "none" in asyncio.run(perform(Tools("default", {}), asking("x"))).detail


def test_arguments_of_another_form_are_poison(app):
    """What does not decode is the request's fault."""

    @app.tool(effect="read")
    async def known(card: str) -> bool:
        return True

    with pytest.raises(PoisonError):
        asyncio.run(perform(Tools("default", {"known": known}), asking("known", b"nonsense")))


def test_a_result_of_another_type_is_the_tools_fault(app):
    """The request was in order, so it is answered, not quarantined."""

    @app.tool(effect="read")
    async def count() -> int:
        return "many"

    result = run(app, count)
    assert isinstance(result, Failed)
    assert result.error == "InvalidResult"
    assert "count" in result.detail


def test_a_poison_error_of_the_tools_own_is_its_answer(app):
    """Only the platform refuses requests; a tool's exception is a tool's exception."""

    @app.tool(effect="read")
    async def read() -> bool:
        raise PoisonError("bad", "a record of its own topic")

    result = run(app, read)
    assert isinstance(result, Failed)
    assert result.detail == "a record of its own topic"


@pytest.mark.parametrize(
    ("effect", "order_key", "intends"),
    [("read", None, False), ("read", "who", False), ("write", None, False), ("write", "who", True),
     ("irreversible", None, True)],
)  # fmt: skip
def test_only_a_service_that_notes_calls_beforehand_needs_transactions(
    app, effect, order_key, intends
):
    """Its worker opens its producer at once, and so needs the right to; models and others never do."""
    asked = []

    class Asked(LocalLog):
        def work(self, topics, *, group, instance, intends=False):
            asked.append(intends)
            return super().work(topics, group=group, instance=instance, intends=intends)

    @app.tool(effect=effect, order_key=order_key)
    async def block(call: headwater.Call[None], who: str) -> str:
        return who

    platform = Platform(app, Asked(), Parts(clock=lambda: 0))
    for name in (f"tool.{block.service}", "model"):
        platform.log.create(platform.names.req(name))
    platform.tools(block.service)
    platform.models({})
    assert asked == [intends, False]
