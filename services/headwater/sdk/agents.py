"""Agents: async functions that decide, one run a task."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar, cast

from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import Shape, shape_of
from headwater.contracts.messages import Limits
from headwater.core.execution import Execution, RunInfo
from headwater.durable.running import Running, Session
from headwater.errors import SettingsError
from headwater.sdk.calls import ask
from headwater.sdk.context import Context
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
        schemas: Knows producers' schemas.
        terms: How it is called as a child.

    Raises:
        SettingsError: It is not such a function, or a type has no Avro form.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str,
        budget: Budget,
        dedupe_s: int,
        schemas: Schemas,
    ) -> None:
        functools.update_wrapper(self, function)
        if not inspect.iscoroutinefunction(function):
            raise SettingsError(f"agent {name}: it must be an async function")
        parameters = list(inspect.signature(function).parameters.values())
        if len(parameters) != PARAMETERS:
            raise SettingsError(f"agent {name}: it takes a context and one task: (ctx, task)")
        hints = typing.get_type_hints(function, include_extras=True)
        task = parameters[1].name
        if task not in hints or "return" not in hints:
            raise SettingsError(f"agent {name}: {task} and the result need type hints")
        self.function = function
        self.name = name
        self.limits: Limits = budget.limits()
        self.dedupe_s = dedupe_s
        self.schemas = schemas
        title = "".join(part.title() for part in name.split("_"))
        self.input: Shape[Any] = _shape(hints[task], f"{title}Task", f"agent {name}: {task}")
        self.output: Shape[Any] = _shape(
            hints["return"], f"{title}Result", f"agent {name}: its result"
        )
        self._terms = Terms()

    def __call__(self, task: I) -> Coroutine[Any, Any, O]:
        """Run it as a child, from another agent.

        Raises:
            AgentError: The child failed or was cancelled.
            BudgetExceeded, Denied: It was never begun.
        """
        return self._ask(task)

    def with_(self, *, timeout_s: float | None = None, budget: Budget | None = None) -> Agent[I, O]:
        """Return this agent to be called on other terms."""
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
            self.input.encode(task),
            timeout_s=self._terms.timeout_s,
            **options,
        )
        return cast("O", self.output.decode(value, self.schemas))

    def begin(self, info: RunInfo, task: bytes) -> Execution:
        """Return a fresh execution of a task.

        Raises:
            PoisonError: The task is not of the agent's input type.
        """
        value = self.input.decode(task, self.schemas)

        async def main(session: Session) -> bytes:
            return self.output.encode(await self.function(Context(session, info), value))

        return Running(main, seed=info.run)

    def outcome_json(self, value: bytes) -> bytes:
        """Return a result as JSON."""
        return self.output.to_json(self.output.decode(value, self.schemas))


def _shape(type_: Any, name: str, where: str) -> Shape[Any]:
    try:
        return shape_of(type_, name=name)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error
