"""Tools: functions that act on the world, called by agents as if they were near."""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar, cast

from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import Shape, shape_of, shape_of_parameters
from headwater.core.effector import Safety
from headwater.errors import SettingsError
from headwater.sdk.calls import ask
from headwater.sdk.types import Call

P = ParamSpec("P")
T = TypeVar("T")
CALL = "call"


class Tool(Generic[P, T]):
    """A declared tool.

    Awaited inside an agent it is a call: journaled, retried, answered once. Outside, `local` runs
    the function itself.

    Args:
        function: What runs in the tools role; async, or sync in a thread.
        effect: What it does to the world.
        name: Its name in this app.
        service: Its topic and process.
        order_key: Parameter whose value orders calls: those with the same value start in order.
        timeout_s: How long one call may take.
        schemas: Knows callers' schemas.

    Raises:
        SettingsError: A parameter or the result has no Avro form, or the terms contradict each other.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        effect: str,
        name: str,
        service: str,
        order_key: str | None,
        timeout_s: float | None,
        schemas: Schemas,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.safety = _safety(name, effect)
        self.service = service
        self.order_key = order_key
        self.timeout_s = timeout_s
        self._schemas = schemas
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = list(signature.parameters.values())
        self.wants_call = bool(parameters) and parameters[0].name == CALL
        taken = parameters[1:] if self.wants_call else parameters
        for parameter in taken:
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                raise SettingsError(f"tool {name}: *{parameter.name} has no Avro form; name it")
            if parameter.name not in hints:
                raise SettingsError(f"tool {name}: parameter {parameter.name} needs a type hint")
        if "return" not in hints:
            raise SettingsError(f"tool {name}: its result needs a type hint")
        if order_key is not None and order_key not in {p.name for p in taken}:
            raise SettingsError(f"tool {name}: order_key {order_key!r} is none of its parameters")
        self._signature = signature.replace(parameters=taken)
        title = "".join(part.title() for part in name.split("_"))
        self.parameters: Shape[dict[str, Any]] = shape_of_parameters(
            [(p.name, hints[p.name], ... if p.default is p.empty else p.default) for p in taken],
            name=f"{title}Parameters",
        )
        self.result: Shape[Any] = shape_of(hints["return"], name=f"{title}Result")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Call the tool from an agent.

        Raises:
            ToolError: It failed, after its retries.
            ToolTimeout: It did not answer in time; what it wrote is not undone.
            BudgetExceeded, Denied: It was never sent.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return self._ask(dict(bound.arguments))

    async def _ask(self, kwargs: dict[str, Any]) -> T:
        order_key = "" if self.order_key is None else str(kwargs[self.order_key])
        value = await ask(
            "tool",
            self.name,
            self.parameters.encode(kwargs),
            timeout_s=self.timeout_s,
            order_key=order_key,
        )
        return cast("T", self.result.decode(value, self._schemas))

    async def local(self, *args: Any, **kwargs: Any) -> T:
        """Run the function itself, here and now: for tests and scripts."""
        return cast("T", await _run(self.function, *args, **kwargs))

    def decode(self, arguments: bytes) -> dict[str, Any]:
        """Read a call's arguments.

        Raises:
            PoisonError: They do not fit the parameters.
        """
        return self.parameters.decode(arguments, self._schemas)

    async def invoke(self, call: Call[Any], kwargs: dict[str, Any]) -> T:
        """Run the function for a call, in the tools role."""
        args = (call,) if self.wants_call else ()
        return cast("T", await _run(self.function, *args, **kwargs))

    def encode(self, result: T) -> bytes:
        """Write a result.

        Raises:
            PoisonError: It does not fit the declared type.
        """
        return self.result.encode(result)


async def _run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if inspect.iscoroutinefunction(function):
        return await cast("Awaitable[Any]", function(*args, **kwargs))
    return await asyncio.to_thread(function, *args, **kwargs)


def _safety(name: str, effect: str) -> Safety:
    if effect not in {"read", "write", "irreversible"}:
        raise SettingsError(f"tool {name}: effect is read, write or irreversible, not {effect!r}")
    if effect == "irreversible":
        raise SettingsError(
            f"tool {name}: effect='irreversible' needs receipts, which this version does not have; "
            "a call may run again after a crash, so declare effect='write' and make it idempotent "
            "by call.idempotency_key"
        )
    return Safety(effect)
