"""Agents: async functions that decide, one run a task."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar, cast

from headwater.contracts.headers import valid_tenant
from headwater.contracts.messages import Limits
from headwater.contracts.shape import Shape
from headwater.core.execution import Execution, RunInfo
from headwater.durable.running import Running, Session
from headwater.errors import AgentError, PoisonError, SettingsError
from headwater.sdk.calls import RUN, ask, encoded
from headwater.sdk.context import Context
from headwater.sdk.events import Events
from headwater.sdk.history import HISTORY, History
from headwater.sdk.surface import RESERVED, Surface, check_timeout, hints, title
from headwater.sdk.types import Budget

I = TypeVar("I")  # noqa: E741 - input
O = TypeVar("O")  # noqa: E741 - output
PARAMETERS = 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a child is called: by default with its own budget and no time limit."""

    timeout_s: float | None = None
    budget: Budget | None = None


class Agent(Generic[I, O]):
    """A declared agent; awaited inside another agent it is a child run.

    Args:
        function: `async def agent(ctx, task) -> result`.
        name: Its name.
        budget: What a run may spend.
        dedupe_s: How long the same task, published again, is dropped.
        emits: Types of the events it publishes.
        tenants: Tenants that its producers may name; `None` for any.
        actors: Whether its producers may name actors.
        surface: Learns its schemas, and knows its producers'.

    Raises:
        SettingsError: It is not such a function, or a type has no Avro form.
    """

    def __init__(
        self,
        function: Callable[..., Coroutine[Any, Any, Any]],
        *,
        name: str,
        budget: Budget,
        dedupe_s: int,
        emits: Sequence[type],
        surface: Surface,
        tenants: Sequence[str] | None = None,
        actors: bool = True,
    ) -> None:
        what = f"agent {name}"
        functools.update_wrapper(self, function)
        if name in RESERVED:
            raise SettingsError(f"{what}: the platform's own topics have this name; choose another")
        if not inspect.iscoroutinefunction(function):
            raise SettingsError(f"{what}: it must be an async function")
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) != PARAMETERS:
            raise SettingsError(f"{what}: it takes a context and one task: (ctx, task)")
        if dedupe_s <= 0:
            raise SettingsError(f"{what}: dedupe_s must be over 0 seconds, not {dedupe_s}")
        known = hints(what, function)
        task = parameters[1].name
        if task not in known or "return" not in known:
            raise SettingsError(f"{what}: {task} and the result need type hints")
        self.function = function
        self.name = name
        self.limits: Limits = budget.limits()
        self.dedupe_s = dedupe_s
        for tenant in tenants or ():
            if not valid_tenant(tenant):
                raise SettingsError(f"{what}: tenant {tenant!r}: 1 to 64 of a-z 0-9 . _ -")
        if tenants is not None and not tenants:
            raise SettingsError(f"{what}: tenants is empty, so nobody could ask it anything")
        self.tenants = None if tenants is None else tuple(tenants)
        self.actors = actors
        self.schemas = surface.schemas
        self.input: Shape[Any] = surface.shape(f"{what}: {task}", known[task], f"{title(name)}Task")
        self.output: Shape[Any] = surface.shape(
            f"{what}: its result", known["return"], f"{title(name)}Result"
        )
        self.events = Events(what, emits, surface)
        self._terms = Terms()

    def __call__(self, task: I) -> Coroutine[object, None, O]:
        """Run it as a child, from another agent.

        Raises:
            AgentError: The child failed or was cancelled, or did not end in time.
            BudgetExceeded, Denied: It was never begun.
            ValueError: The task is not of its input type.
        """
        return self._ask(task)

    def with_(self, *, timeout_s: float | None = None, budget: Budget | None = None) -> Agent[I, O]:
        """Return this agent to be called on other terms.

        Args:
            timeout_s: How long to wait; then the child is cancelled.
            budget: What the child may spend, instead of its own budget.
        """
        check_timeout(f"agent {self.name}", timeout_s)
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._terms = Terms(timeout_s=timeout_s, budget=budget)
        return other

    async def _ask(self, task: I) -> O:
        options: dict[str, Any] = {}
        if self._terms.budget is not None:
            options["limits"] = self._terms.budget.limits()
        value = await ask(
            "agent",
            self.name,
            encoded(f"the task of agent {self.name}", self.input, task),
            timeout_s=self._terms.timeout_s,
            **options,
        )
        try:
            return cast("O", self.output.decode(value, self.schemas))
        except PoisonError as error:
            raise AgentError(
                f"agent {self.name} answered in another type: {error}", error=error.code
            ) from error

    def begin(self, info: RunInfo, task: bytes) -> Execution:
        """Return a fresh execution of a task.

        Raises:
            PoisonError: The task is not of the agent's input type.
        """
        value = self.input.decode(task, self.schemas)

        async def main(session: Session) -> bytes:
            RUN.set(info.run)
            HISTORY.set(History() if info.by_reference else None)
            result = await self.function(Context(session, info, self.events, again), value)
            return encoded(f"the result of agent {self.name}", self.output, result)

        def again(task: Any) -> bytes:
            return encoded(f"the task that agent {self.name} continues as", self.input, task)

        return Running(main, seed=f"{info.run}/{info.journal}" if info.journal else info.run)

    def outcome_json(self, value: bytes) -> bytes:
        """Return a result as JSON."""
        return self.output.to_json(self.output.decode(value, self.schemas))
