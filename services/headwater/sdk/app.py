"""An app: the agents, tools and models that one namespace runs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import Shape
from headwater.core.judge import AllowAll, Judge
from headwater.core.prices import Price
from headwater.errors import SettingsError
from headwater.sdk.agents import Agent
from headwater.sdk.models import Model
from headwater.sdk.tools import Tool
from headwater.sdk.types import Budget

DEDUPE_S = 86_400
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
Lifespan = Callable[..., AsyncIterator[Any]]


class App:
    """What one namespace runs: every role loads it.

    Args:
        name: The app's name.
        namespace: Begins every topic, group and transactional id.
        version: By default the version of the distribution of the same name, else `0`.
        judge: Decides whether calls may be made; by default all may.

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
        _check("app", name)
        _check("namespace", namespace)
        self.name = name
        self.namespace = namespace
        self.version = version or _version_of(name)
        self.judge: Judge = judge or AllowAll()
        self.schemas = Schemas()
        self.agents: dict[str, Agent[Any, Any]] = {}
        self.tools: dict[str, Tool[Any, Any]] = {}
        self.models: dict[str, Model] = {}
        self.lifespans: dict[str, Lifespan] = {}

    def model(
        self,
        name: str,
        spec: str | Callable[..., Any],
        *,
        settings: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        price: Price | None = None,
    ) -> Model:
        """Declare a model; see `Model`."""
        self._free("model", name, self.models)
        self.models[name] = Model(name, spec, settings=settings, timeout_s=timeout_s, price=price)
        return self.models[name]

    def tool(
        self,
        *,
        effect: str,
        service: str = "default",
        order_key: str | None = None,
        timeout_s: float | None = None,
        name: str | None = None,
    ) -> Callable[[Callable[..., Any]], Tool[Any, Any]]:
        """Declare a tool; see `Tool`."""

        def declare(function: Callable[..., Any]) -> Tool[Any, Any]:
            of = name or function.__name__
            self._free("tool", of, self.tools)
            _check(f"tool {of}: service", service)
            self.tools[of] = Tool(
                function,
                effect=effect,
                name=of,
                service=service,
                order_key=order_key,
                timeout_s=timeout_s,
                schemas=self.schemas,
            )
            self._learn(self.tools[of].parameters, self.tools[of].result)
            return self.tools[of]

        return declare

    def agent(
        self,
        function: Callable[..., Any] | None = None,
        *,
        budget: Budget | None = None,
        dedupe_s: int = DEDUPE_S,
        name: str | None = None,
    ) -> Any:
        """Declare an agent, with or without arguments; see `Agent`."""

        def declare(function: Callable[..., Any]) -> Agent[Any, Any]:
            of = name or function.__name__
            self._free("agent", of, self.agents)
            self.agents[of] = Agent(
                function,
                name=of,
                budget=budget or Budget(),
                dedupe_s=dedupe_s,
                schemas=self.schemas,
            )
            self._learn(self.agents[of].input, self.agents[of].output)
            return self.agents[of]

        return declare if function is None else declare(function)

    def lifespan(self, role: str) -> Callable[[Lifespan], Lifespan]:
        """Declare what a role sets up once per process: an async generator that yields it."""

        def declare(function: Lifespan) -> Lifespan:
            if role != "tools":
                raise SettingsError(f"lifespan of {role!r}: only the tools role has one")
            if role in self.lifespans:
                raise SettingsError(f"two lifespans of {role!r}")
            self.lifespans[role] = function
            return function

        return declare

    def services(self) -> list[str]:
        """Return the names of the tool services, sorted."""
        return sorted({tool.service for tool in self.tools.values()})

    def shapes(self) -> dict[str, Shape[Any]]:
        """Return every shape that crosses a topic, by record name."""
        found: dict[str, Shape[Any]] = {}
        for agent in self.agents.values():
            found |= {agent.input.name: agent.input, agent.output.name: agent.output}
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

    def _learn(self, *shapes: Shape[Any]) -> None:
        for shape in shapes:
            self.schemas.add(shape.schema)

    def _free(self, kind: str, name: str, taken: dict[str, Any]) -> None:
        _check(kind, name)
        if name in taken:
            raise SettingsError(f"{kind} {name}: declared twice")


def _check(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{what} {name!r}: a name is a-z, then up to 63 of a-z 0-9 _ -, because topics carry it"
        )


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "0"
