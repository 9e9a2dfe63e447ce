"""An app: the agents, tools and models that one namespace runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar, overload

from headwater.contracts.catalog import Schemas
from headwater.contracts.shape import Shape
from headwater.core.judge import EXPIRES_S, AllowAll, Judge
from headwater.core.prices import Price
from headwater.errors import SettingsError
from headwater.sdk.agents import Agent
from headwater.sdk.approving import ApproveIf, Approving
from headwater.sdk.context import Context
from headwater.sdk.models import Model, ModelSettings
from headwater.sdk.surface import OURS, Surface, check_name
from headwater.sdk.tools import Effect, OrderKey, Tool
from headwater.sdk.types import Budget, Call

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741 - input
O = TypeVar("O")  # noqa: E741 - output
L = TypeVar("L", bound="Lifespan")
DEDUPE_S = 86_400
SERVICE = "tools"
"""The service of tools that name none."""
Lifespan = Callable[..., AsyncIterator[Any]]


class DeclareTool(Protocol):
    """What `@app.tool(...)` does to a function: its `call` goes, and calling it returns a coroutine."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Call[Any], P], Coroutine[Any, Any, T]], /
    ) -> Tool[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]], /) -> Tool[P, T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Call[Any], P], T], /) -> Tool[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> Tool[P, T]: ...


class App:
    """What one namespace runs: every role loads it.

    Args:
        name: The app's name; also the namespace of its schemas.
        namespace: Begins every topic, group and transactional id.
        version: By default the version of the distribution of the same name, else `0`.
        judge: Decides whether calls may be made; by default all may.

    Raises:
        SettingsError: A name cannot be carried by topics.

    Example:
        >>> app = App("bank")
        >>> @app.tool(effect="read")
        ... async def balance(account: str) -> int:
        ...     return 7
        >>> sorted(app.tools)
        ['balance']
    """

    def __init__(
        self,
        name: str,
        *,
        namespace: str = "hw",
        version: str | None = None,
        judge: Judge | None = None,
    ) -> None:
        check_name("app", name)
        check_name("namespace", namespace)
        if name == OURS:
            raise SettingsError(
                f"app {name!r}: the platform's own schemas have this name; choose another"
            )
        self.name = name
        self.namespace = namespace
        self.version = version or _version_of(name)
        self._judge: Judge = judge or AllowAll()
        self.agents: dict[str, Agent[Any, Any]] = {}
        self.tools: dict[str, Tool[Any, Any]] = {}
        self.models: dict[str, Model] = {}
        self.lifespans: dict[str, Lifespan] = {}
        self._surface = Surface(name.replace("-", "_"))

    @property
    def schemas(self) -> Schemas:
        """Writer schemas that this process knows: the app's own, and what it learns from topics."""
        return self._surface.schemas

    @property
    def judge(self) -> Judge:
        """Who decides whether calls may be made: the app's own judge, and what tools say of theirs."""
        return Approving(self._judge, self.tools, self.version)

    def model(
        self,
        name: str,
        spec: str | Callable[..., Any],
        *,
        settings: ModelSettings | None = None,
        timeout_s: float | None = None,
        price: Price | None = None,
    ) -> Model:
        """Declare a model; see `Model`."""
        _free("model", name, self.models)
        self.models[name] = Model(name, spec, settings=settings, timeout_s=timeout_s, price=price)
        return self.models[name]

    @overload
    def tool(
        self,
        /,
        *,
        effect: Effect,
        service: str = SERVICE,
        order_key: OrderKey | None = None,
        timeout_s: float | None = None,
        name: str | None = None,
        approve_if: Callable[..., object] | None = None,
        approve_to: str = "",
        approve_expires_s: float = EXPIRES_S,
    ) -> DeclareTool: ...
    @overload
    def tool(self, function: Callable[..., Any], /) -> NoReturn: ...
    def tool(
        self,
        function: Any = None,
        /,
        *,
        effect: Effect | None = None,
        service: str = SERVICE,
        order_key: OrderKey | None = None,
        timeout_s: float | None = None,
        name: str | None = None,
        approve_if: Callable[..., object] | None = None,
        approve_to: str = "",
        approve_expires_s: float = EXPIRES_S,
    ) -> Any:
        """Declare a tool, always with its effect.

        Args:
            function: Of a tool that is declared without arguments, and so without an effect: refused.
            effect: What it does to the world: `read`, `write`, or `irreversible`, which the machine never
                repeats.
            service: Its own topic, process and credentials.
            order_key: Calls of equal keys start in order: a parameter's name, or a pure function of
                all arguments by name.
            timeout_s: How long one call may take.
            name: By default the function's.
            approve_if: A pure function of the tool's arguments, in their order: whether a person has to
                approve this call before it is sent. If it raises, the call is denied.
            approve_to: Who may: `group:<name>`, an actor, or empty for anybody but who asked for the run.
                They also say what became of a call that nobody knows the end of.
            approve_expires_s: How long they may take.

        Raises:
            SettingsError: The function or its terms cannot work; the message names tool and parameter.
        """

        def declare(function: Callable[..., Any]) -> Tool[Any, Any]:
            of = _named("tool", name, function)
            _free("tool", of, self.tools)
            if effect is None:
                raise SettingsError(
                    f'tool {of}: say what it does to the world: @app.tool(effect="read"), "write", which '
                    'may run again after a crash, or "irreversible", which the machine never repeats'
                )
            self.tools[of] = Tool(
                function,
                effect=effect,
                name=of,
                service=service,
                order_key=order_key,
                timeout_s=timeout_s,
                surface=self._surface,
                approval=ApproveIf(when=approve_if, to=approve_to, expires_s=approve_expires_s),
            )
            return self.tools[of]

        return declare if function is None else declare(function)

    @overload
    def agent(self, function: Callable[[Context, I], Coroutine[Any, Any, O]], /) -> Agent[I, O]: ...
    @overload
    def agent(
        self,
        /,
        *,
        budget: Budget | None = None,
        dedupe_s: int = DEDUPE_S,
        emits: Sequence[type] = (),
        tenants: Sequence[str] | None = None,
        actors: bool = True,
        name: str | None = None,
    ) -> Callable[[Callable[[Context, I], Coroutine[Any, Any, O]]], Agent[I, O]]: ...
    def agent(
        self,
        function: Any = None,
        /,
        *,
        budget: Budget | None = None,
        dedupe_s: int = DEDUPE_S,
        emits: Sequence[type] = (),
        tenants: Sequence[str] | None = None,
        actors: bool = True,
        name: str | None = None,
    ) -> Any:
        """Declare an agent, with or without arguments.

        Args:
            function: `async def agent(ctx, task) -> result`.
            budget: What a run may spend.
            dedupe_s: How long the same task, published again, is dropped.
            emits: Types of the events it publishes with `ctx.emit`.
            tenants: Tenants that its producers may name; a single one need not be named. By default
                any, and then the broker's ACLs alone say who may speak for whom.
            actors: Whether its producers may name the actor (`ce_actorid`); the gateway is one.
            name: By default the function's.

        Raises:
            SettingsError: The function or its terms cannot work; the message names agent and field.
        """

        def declare(function: Callable[..., Coroutine[Any, Any, Any]]) -> Agent[Any, Any]:
            of = _named("agent", name, function)
            _free("agent", of, self.agents)
            self.agents[of] = Agent(
                function,
                name=of,
                budget=budget or Budget(),
                dedupe_s=dedupe_s,
                emits=emits,
                tenants=tenants,
                actors=actors,
                surface=self._surface,
            )
            return self.agents[of]

        return declare if function is None else declare(function)

    def lifespan(self, role: str) -> Callable[[L], L]:
        """Declare what a role sets up once per process: an async generator that yields it.

        Raises:
            SettingsError: The role has none, or two.
        """

        def declare(function: L) -> L:
            if role != "tools":
                raise SettingsError(f"lifespan of {role!r}: only the tools role has one")
            if role in self.lifespans:
                raise SettingsError(f"two lifespans of {role!r}: join them in one")
            fits = inspect.isasyncgenfunction(function)
            if not fits:
                raise SettingsError(
                    f"lifespan of {role!r}: it must be an async generator, `async def` with one yield"
                )
            self.lifespans[role] = function
            return function

        return declare

    def check(self) -> None:
        """Refuse an app that nothing could be asked of.

        Raises:
            SettingsError: It has no agents. Whatever else cannot work is refused where it is declared.
        """
        if not self.agents:
            raise SettingsError(f"app {self.name} has no agents: declare one with @app.agent")

    def services(self) -> list[str]:
        """Return the names of the tool services, sorted."""
        return sorted({tool.service for tool in self.tools.values()})

    def shapes(self) -> dict[str, Shape[Any]]:
        """Return every shape that crosses a topic, by record name."""
        found: dict[str, Shape[Any]] = {}
        for agent in self.agents.values():
            shapes = (agent.input, agent.output, *agent.events.shapes.values())
            found |= {shape.name: shape for shape in shapes}
        for tool in self.tools.values():
            found |= {tool.parameters.name: tool.parameters, tool.result.name: tool.result}
        return found

    def digest(self) -> str:
        """Return a hash of names, schemas and effects: two processes of one namespace must agree on it."""
        surface = {
            "agents": {n: [a.input.schema, a.output.schema] for n, a in self.agents.items()},
            "tools": {
                n: [t.parameters.schema, t.result.schema, t.safety.value, t.service]
                for n, t in self.tools.items()
            },
            "models": sorted(self.models),
        }
        text = json.dumps(surface, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _named(kind: str, name: str | None, function: Callable[..., Any]) -> str:
    found: str | None = name or getattr(function, "__name__", None)
    if found is None:
        raise SettingsError(f"{kind} {function!r} has no name: give it one with name=")
    return found


def _free(kind: str, name: str, taken: dict[str, Any]) -> None:
    check_name(kind, name)
    if name in taken:
        raise SettingsError(f"{kind} {name}: declared twice")


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "0"
