"""Tools: near to call, far to run."""

from __future__ import annotations

import asyncio
import decimal
import threading
import uuid
from typing import Annotated, Any

import pydantic
import pytest
from tests.unit.sdk.host import Host

import headwater
from headwater.core.effector import Safety
from headwater.sdk.app import App

bank = App("bank")
Money = Annotated[decimal.Decimal, headwater.Scale(10, 2)]


class Payment(pydantic.BaseModel):
    account: str
    amount: Money


@bank.tool(effect="read")
async def balance(account: str, *, in_cents: bool = False) -> int:
    return len(account) * (100 if in_cents else 1)


@bank.tool(effect="write", service="cards", order_key="card_id", timeout_s=2)
async def block_card(
    call: headwater.Call[dict[str, int]], card_id: str | None, why: str = ""
) -> str:
    await call.progress("blocking")
    call.heartbeat("half")
    return f"{call.idempotency_key} {card_id} {why}"


@bank.tool(effect="write", order_key=lambda args: args["payment"].account)
def pay(call: headwater.Call[None], payment: Payment) -> str:
    call.progress(f"paying {payment.amount}")
    call.heartbeat(payment.account)
    return threading.current_thread().name


@bank.tool(effect="read")
def plain(number: int) -> int:
    return number + 1


@bank.agent
async def asks(ctx: headwater.Context, what: str) -> str:
    if what == "balance":
        return str(await balance("42", in_cents=True))
    if what == "block":
        return await block_card("c1")
    if what == "block any":
        return await block_card(None, why="all")
    if what == "pay":
        return await pay(Payment(account="a1", amount=decimal.Decimal("1.25")))
    if what == "bind":
        return str(await balance("42", 1))  # type: ignore[call-arg, arg-type] # the mistake
    return str(await balance(object()))  # type: ignore[arg-type] # the mistake


def test_tool_in_an_agent_is_a_call() -> None:
    """Arguments are bound by the signature, defaults and all, and the `call` is never passed."""
    host = Host(asks, "balance")
    (asked,) = host.asked
    assert (asked.kind, asked.name) == ("tool", "balance")
    assert balance.decode(asked.arguments) == {"account": "42", "in_cents": True}
    assert asked.options == {"order_key": ""}
    host.answer(1, balance.encode(7))
    assert host.result == "7"


def test_terms_travel_beside_the_call() -> None:
    """The host needs the order key and the time limit, not the arguments' meaning."""
    (asked,) = Host(asks, "block").asked
    assert block_card.decode(asked.arguments) == {"card_id": "c1", "why": ""}
    assert asked.options == {"order_key": "c1", "timeout_ms": 2_000}
    (asked,) = Host(asks, "block any").asked
    assert asked.options["order_key"] == ""
    (asked,) = Host(asks, "pay").asked
    assert asked.options == {"order_key": "a1"}


def test_tool_that_is_late_is_withdrawn() -> None:
    """A timed-out write is not undone: the error carries the call's id."""
    host = Host(asks, "block")
    step = host.tick(2)
    assert step.withdrawn == (1,)
    assert host.raised.error == "headwater.errors.ToolTimeout"


def test_arguments_that_do_not_fit_are_the_agents_mistake() -> None:
    """As with any function; nothing is asked."""
    for what, error in (("bind", "TypeError"), ("other", "ValueError")):
        host = Host(asks, what)
        assert host.asked == []
        assert host.raised.error == error


def test_answer_of_another_type_is_a_tool_error() -> None:
    """A tool of another version may answer what cannot be read."""
    host = Host(asks, "balance")
    host.answer(1, b"\xc3\x01rubbish!")
    assert host.raised.error == "headwater.errors.ToolError"
    assert "tool balance answered in another type" in host.raised.detail


def test_local_runs_the_function_itself() -> None:
    """Outside an agent there is no run; scripts and tests call the function."""

    async def main() -> list[Any]:
        return [
            await balance.local("42"),
            await block_card.local("c1", why="lost"),
            await plain.local(1),
            (await pay.local(Payment(account="a", amount=decimal.Decimal(1)))) != "MainThread",
        ]

    assert asyncio.run(main()) == [2, "local c1 lost", 2, True]


def test_tool_outside_a_run_says_what_to_do() -> None:
    """Awaiting it needs an agent."""
    with pytest.raises(RuntimeError, match=r"tool\.local"):
        asyncio.run(plain(1))


def test_invoke_passes_the_call_and_hears_from_threads() -> None:
    """Async or sync, a tool may tell of its progress; a thread's words arrive on the loop."""
    heard: list[tuple[str, str]] = []

    async def progress(text: str) -> None:
        heard.append((threading.current_thread().name, text))

    def heartbeat(state: object) -> None:
        heard.append((threading.current_thread().name, f"beat {state}"))

    call = headwater.Call(
        deps={"a": 1}, idempotency_key="k1", heartbeat=heartbeat, progress=progress
    )

    async def main() -> list[Any]:
        payment = Payment(account="a1", amount=decimal.Decimal("1.25"))
        return [
            await block_card.invoke(call, {"card_id": "c1", "why": ""}),
            await pay.invoke(call, {"payment": payment}),
            await plain.invoke(call, {"number": 1}),
        ]

    key, thread, two = asyncio.run(main())
    assert (key, two) == ("k1 c1 ", 2)
    assert thread != "MainThread"
    here = threading.current_thread().name
    assert heard == [
        (here, "blocking"),
        (here, "beat half"),
        (here, "paying 1.25"),
        (here, "beat a1"),
    ]


def test_progress_of_a_thread_may_be_awaited_too() -> None:
    """One type for both kinds of tools."""
    quiet = headwater.Call(deps=None)

    def awkward(call: headwater.Call[None]) -> bool:
        asyncio.run(_wait(call))
        return True

    async def _wait(call: headwater.Call[None]) -> None:
        await call.progress("x")

    tool = App("bank").tool(effect="read")(awkward)
    assert asyncio.run(tool.invoke(quiet, {})) is True


def test_call_is_known_by_its_type_or_its_name() -> None:
    """A call may have another name; a parameter named so may have no type."""
    app = App("bank")

    @app.tool(effect="read")
    async def other(c: headwater.Call[None], number: int) -> int:
        return number + c.attempt

    @app.tool(effect="read")
    async def bare(call, number: int) -> int:  # type: ignore[no-untyped-def] # the case
        return number + call.attempt  # type: ignore[no-any-return] # as above

    @app.tool(effect="read")
    async def unparametrised(call: headwater.Call, number: int) -> int:  # type: ignore[type-arg] # the case
        return number + call.attempt

    @app.tool(effect="read")
    async def nothing() -> int:
        return 2

    for tool in (other, bare, unparametrised):
        assert tool.wants_call
        assert asyncio.run(tool.invoke(headwater.Call(deps=None), {"number": 1})) == 2
    assert not nothing.wants_call
    assert asyncio.run(nothing.local()) == 2


def test_results_are_checked_by_the_declared_type() -> None:
    """What a tool returns is what it said it returns."""
    assert plain.decode_result(plain.encode(3)) == 3
    with pytest.raises(headwater.PoisonError):
        plain.encode("three")  # type: ignore[arg-type] # the mistake


def test_effect_says_what_may_be_repeated() -> None:
    """Read, write and irreversible."""
    assert (plain.safety, pay.safety) == (Safety.READ, Safety.WRITE)
    assert "effect is read, write or irreversible" in refused(good, effect="reads")
    assert transfer().safety is Safety.IRREVERSIBLE


def transfer() -> Any:
    """Return an irreversible tool of an app of its own."""
    app = headwater.App("own")

    @app.tool(effect="irreversible")
    async def transfer(account: str, cents: int) -> str:
        return f"{account}: {cents}"

    return transfer


@pytest.mark.parametrize("wants_call", [False, True])
def test_verify_is_asked_with_what_the_tool_was_given(wants_call: bool) -> None:
    """It finds out what a call led to, by the same arguments, and the same call if it wants it."""
    tool = transfer()
    if wants_call:

        @tool.verify
        async def near(call: headwater.Call[Any], account: str, cents: int) -> str | None:
            return f"{call.idempotency_key} {account} {cents}"
    else:

        @tool.verify
        def far(account: str, cents: int) -> str | None:
            return f" {account} {cents}"

    call = headwater.Call(deps=None, idempotency_key="r/1" if wants_call else "")
    found = asyncio.run(tool.found(call, {"account": "a", "cents": 5}))
    assert found == f"{call.idempotency_key} a 5"


def test_verify_is_refused_where_it_cannot_work() -> None:
    """Of what may be called again, twice, or with other parameters."""
    with pytest.raises(headwater.SettingsError, match="belongs to effect='irreversible'"):
        pay.verify(good)
    tool = transfer()
    with pytest.raises(headwater.SettingsError, match="takes key; the tool takes account, cents"):
        tool.verify(good)
    tool.verify(lambda account, cents: None)
    with pytest.raises(headwater.SettingsError, match="declared twice"):
        tool.verify(lambda account, cents: None)


def test_verify_is_refused_where_none_would_say_both() -> None:
    """A call that happened and returned `None` would be made again, as one that did not happen."""

    async def quiet(account: str) -> str | None:
        return None

    tool = headwater.App("own").tool(effect="irreversible")(quiet)
    with pytest.raises(headwater.SettingsError, match="None of a call that did not happen"):
        tool.verify(lambda account: None)


async def good(key: uuid.UUID) -> bool:
    return True


def refused(function: Any, **terms: Any) -> str:
    with pytest.raises(headwater.SettingsError) as caught:
        App("bank").tool(**({"effect": "read"} | terms))(function)
    return str(caught.value)


def test_what_is_no_tool_is_refused() -> None:
    """The message names tool and parameter."""

    async def many(*keys: str) -> bool:
        return True

    async def more(**keys: str) -> bool:
        return True

    async def first(key: str, /) -> bool:
        return True

    async def late(key: str, call: headwater.Call[None]) -> bool:
        return True

    async def phone(call: str) -> bool:
        return True

    async def unhinted(key) -> bool:  # type: ignore[no-untyped-def] # that is refused
        return True

    async def silent(key: str):  # type: ignore[no-untyped-def] # that is refused
        return True

    async def odd(key: complex) -> bool:
        return True

    async def foreign(key: list[threading.Event]) -> bool:
        return True

    async def loose(key: Annotated[int, [1]]) -> bool:
        return True

    async def hidden(_key: str) -> bool:
        return True

    assert "tool many: *keys has no Avro form" in refused(many)
    assert "tool more: *keys has no Avro form" in refused(more)
    assert "tool first: key travels by name" in refused(first)
    assert "tool late: the call, call, must be its first parameter" in refused(late)
    assert "tool phone: a first parameter named call is the call" in refused(phone)
    assert "tool unhinted: parameter key needs a type hint" in refused(unhinted)
    assert "tool silent: its result needs a type hint" in refused(silent)
    assert "tool odd: parameter key: complex has no Avro form" in refused(odd)
    assert "tool foreign: parameter key[]: Event has no Avro form" in refused(foreign)
    assert "tool loose: parameter key: the type cannot be used" in refused(loose)
    assert "tool hidden: parameter _key must not begin with _" in refused(hidden)
    assert "order_key 'card' is none of its parameters" in refused(good, order_key="card")
    assert "timeout_s must be over 0" in refused(good, timeout_s=-1)


def test_a_tool_without_an_effect_is_told_the_choices():
    """Whether its brackets are there or not; nobody else knows what it does to the world."""
    app = headwater.App("shop")

    async def look(n: int) -> int:
        return n

    for declare in (lambda: app.tool(look), lambda: app.tool()(look)):
        with pytest.raises(
            headwater.SettingsError, match=r'tool look: .*"read"\), "write".*"irreversible"'
        ):
            declare()
    assert app.tools == {}
