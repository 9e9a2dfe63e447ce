"""Declaring an app: what is taken, and what is refused at once."""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pydantic
import pytest

import headwater
from headwater.core.execution import Asked
from headwater.core.judge import Allow, Deny
from headwater.core.messages import Meta
from headwater.sdk.app import App


class Claim(pydantic.BaseModel):
    amount: int


class Nested(pydantic.BaseModel):
    claims: list[Claim] = []
    by_name: dict[str, Claim] = {}
    maybe: Claim | None = None


@dataclasses.dataclass(frozen=True)
class Happened:
    what: str


class Colour(enum.Enum):
    RED = 1


class Unknown:
    pass


def other_claim() -> type:
    """Return another type of the same name."""

    class Claim(pydantic.BaseModel):
        amount: str

    return Claim


def other_colour() -> type:
    """Return another enum of the same name."""

    class Colour(enum.Enum):
        BLUE = 1

    return Colour


def app(**terms: Any) -> App:
    return App("bank", **terms)


async def triage(ctx: headwater.Context, claim: Claim) -> Nested:
    return Nested()


def test_what_is_declared_is_found_by_name() -> None:
    """Roles load agents, tools, models and lifespans by name."""
    bank = app(version="3")
    small = bank.model("small", "openai:gpt-5-mini")
    agent = bank.agent(triage)

    @bank.tool(effect="read")
    async def balance(account: str) -> int:
        return 1

    @bank.tool(effect="write", service="cards", name="block-card")
    async def block(card: str) -> bool:
        return True

    @bank.lifespan("tools")
    async def deps(settings: object) -> AsyncIterator[int]:
        yield 1

    assert bank.models == {"small": small}
    assert bank.agents == {"triage": agent}
    assert bank.tools == {"balance": balance, "block-card": block}
    assert bank.lifespans == {"tools": deps}
    assert bank.services() == ["cards", "tools"]
    assert bank.version == "3"
    assert balance.__doc__ == balance.function.__doc__
    assert sorted(bank.shapes()) == [
        "BalanceResult", "BlockCardResult", "bank.BalanceParameters", "bank.BlockCardParameters",
        "bank.Claim", "bank.Nested",
    ]  # fmt: skip
    bank.check()


def test_version_is_the_distributions() -> None:
    """An app that is installed has its distribution's version, any other has 0."""
    assert App("pydantic").version == pydantic.VERSION
    assert app().version == "0"


def test_judge_allows_everything_unless_given() -> None:
    """An app may bring rules of its own."""

    class Strict:
        version = "1"

        def judge(self, call: Asked, meta: Meta) -> Deny:
            return Deny("never")

    call, meta = (
        Asked(number=1, kind="model", name="m", arguments=b"", digest=b""),
        Meta(id="m", tenant="t"),
    )
    assert app().judge.judge(call, meta) == Allow()
    assert app(judge=Strict()).judge.judge(call, meta) == Deny("never")
    assert app(judge=Strict(), version="7").judge.version == "1 7"


@pytest.mark.parametrize("name", ["", "Bank", "1bank", "a" * 65, "a.b", "bänk", "-a"])
def test_names_that_topics_cannot_carry_are_refused(name: str) -> None:
    """A name is a-z, then up to 63 of a-z 0-9 _ -."""
    bank = app()
    refusals: list[Callable[[], object]] = [
        lambda: App(name),
        lambda: App("bank", namespace=name),
        lambda: bank.model(name, "test"),
        lambda: bank.tool(effect="read", service=name)(functools.partial(triage)),
    ]
    if name:
        refusals += [lambda: bank.agent(name=name)(triage)]
    for refused in refusals:
        with pytest.raises(headwater.SettingsError, match="name"):
            refused()


def test_longest_name_is_taken() -> None:
    """64 characters are a name."""
    assert "a" * 64 in {app().agent(name="a" * 64)(triage).name}


@pytest.mark.parametrize("name", ["admission", "approvals", "runs", "tokens"])
def test_names_of_the_platforms_topics_are_refused(name: str) -> None:
    """An agent `runs` would publish its outcomes into the life cycle of all."""
    with pytest.raises(headwater.SettingsError, match="platform's own topics"):
        app().agent(name=name)(triage)


def test_name_of_the_platforms_schemas_is_refused() -> None:
    """A user's Reply must never be the platform's."""
    with pytest.raises(headwater.SettingsError, match="platform's own schemas"):
        App("headwater")
    bank = App("my-bank")
    assert bank.agent(triage).input.name == "my_bank.Claim"


def test_second_declaration_of_a_name_is_refused() -> None:
    """One name, one meaning."""
    bank = app()
    bank.agent(triage)
    bank.model("small", "test")
    bank.tool(effect="read", name="t")(lookup)
    for twice in (
        lambda: bank.agent(triage),
        lambda: bank.model("small", "test"),
        lambda: bank.tool(effect="read", name="t")(lookup),
    ):
        with pytest.raises(headwater.SettingsError, match="declared twice"):
            twice()


async def lookup(key: str) -> str:
    return key


def test_function_without_a_name_needs_one() -> None:
    """A partial has no name of its own."""
    bank = app()
    with pytest.raises(headwater.SettingsError, match="give it one with name="):
        bank.tool(effect="read")(functools.partial(lookup))


def test_two_types_of_one_name_are_refused() -> None:
    """A schema's full name means one thing in a namespace; the message names both places."""
    bank = app()
    bank.agent(triage)
    another = other_claim()

    async def fraud(ctx: headwater.Context, claim: Any) -> bool:
        return True

    fraud.__annotations__["claim"] = another
    with pytest.raises(
        headwater.SettingsError,
        match=r"agent fraud: claim: its type bank\.Claim .* agent triage: claim",
    ):
        bank.agent(fraud)


def test_two_types_of_one_name_are_refused_in_depth() -> None:
    """Fields' types have names as well, in lists, dicts, unions and enums."""
    bank = app()
    bank.agent(triage)
    another: Any = other_claim()
    for number, type_ in enumerate(
        [list[another], dict[str, another], another | None, list[list[another]]]
    ):
        model = pydantic.create_model(f"Holder{number}", field=(type_, ...))
        with pytest.raises(headwater.SettingsError, match=r"its type bank\.Claim"):
            bank.agent(name=f"a{number}", emits=[model])(triage)
    bank.agent(name="red", emits=[pydantic.create_model("R", c=(Colour, ...), d=(Colour, ...))])(
        triage
    )
    with pytest.raises(headwater.SettingsError, match=r"its type bank\.Colour"):
        bank.agent(name="blue", emits=[pydantic.create_model("B", c=(other_colour(), ...))])(triage)


def test_same_type_may_be_used_everywhere() -> None:
    """A type that was defined inside one record and is referred to in another is the same type."""
    bank = app()
    bank.agent(triage)
    bank.agent(name="two", emits=[Claim, Nested])(triage)
    assert bank.shapes()["bank.Claim"].schema["fields"] == [{"name": "amount", "type": "long"}]


def test_unsupported_type_is_refused_naming_agent_and_field() -> None:
    """What has no Avro form is refused when the app is built."""

    async def odd(ctx: headwater.Context, claim: Claim) -> Any:
        return None

    odd.__annotations__["return"] = pydantic.create_model("Odd", inner=(dict[int, str], ...))
    with pytest.raises(headwater.SettingsError, match=r"agent odd: its result: .*inner"):
        app().agent(odd)
    odd.__annotations__["return"] = complex
    with pytest.raises(headwater.SettingsError, match=r"agent odd: its result: .*complex"):
        app().agent(odd)
    odd.__annotations__["return"] = list[Unknown]
    with pytest.raises(headwater.SettingsError, match=r"agent odd: its result: .*Unknown"):
        app().agent(odd)


def test_type_that_nothing_can_carry_is_refused() -> None:
    """Whoever notices first, the message names agent and field."""

    async def odd(ctx: headwater.Context, claim: Annotated[int, ["unhashable"]]) -> int:
        return 1

    with pytest.raises(headwater.SettingsError, match="agent odd: claim: the type cannot be used"):
        app().agent(odd)


def test_lifespan_is_refused_where_none_is_entered() -> None:
    """Only the tools role has one, one, and it yields."""
    bank = app()

    async def good(settings: object) -> AsyncIterator[int]:
        yield 1

    async def bad(settings: object) -> int:
        return 1

    with pytest.raises(headwater.SettingsError, match="only the tools role"):
        bank.lifespan("agents")(good)
    with pytest.raises(headwater.SettingsError, match="async generator"):
        bank.lifespan("tools")(bad)  # type: ignore[type-var] # that is what it refuses
    bank.lifespan("tools")(good)
    with pytest.raises(headwater.SettingsError, match="two lifespans"):
        bank.lifespan("tools")(good)


def test_app_without_agents_is_refused() -> None:
    """Nothing could be asked of it."""
    with pytest.raises(headwater.SettingsError, match="app bank has no agents"):
        app().check()


def test_digest_tells_surfaces_apart() -> None:
    """Processes of one namespace must agree on names, schemas and effects; code may differ."""

    def made(effect: Any = "read", name: str = "small", service: str = "tools") -> str:
        bank = app()
        bank.model(name, "test")
        bank.agent(triage)
        bank.tool(effect=effect, service=service)(lookup)
        return bank.digest()

    same = made()
    assert same == made()
    assert len({same, made("write"), made(name="large"), made(service="cards")}) == 4
