"""Tools: functions that act on the world, called by agents as if they were near."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast

import pydantic_core

from headwater.contracts.derive import shape_of_parameters
from headwater.contracts.shape import Shape
from headwater.core.effector import Safety, occupying
from headwater.errors import PoisonError, SettingsError, ToolError
from headwater.sdk.approving import ASKS_NOBODY, ApproveIf
from headwater.sdk.calls import ask, encoded
from headwater.sdk.surface import Surface, check_name, check_timeout, hints, title
from headwater.sdk.types import Call

P = ParamSpec("P")
T = TypeVar("T")
Effect = Literal["read", "write", "irreversible"]
OrderKey = str | Callable[[Mapping[str, Any]], object]
CALL = "call"
PROGRESS_S_MAX = 30.0
"""How long a sync tool waits until a piece of its progress is published."""


class Tool(Generic[P, T]):
    """A declared tool.

    Awaited inside an agent it is a call: journaled, retried, answered once. Outside, `local` runs
    the function itself.

    Args:
        function: What runs in the tools role; async, or sync in a thread.
        effect: What it does to the world.
        name: Its name in this app.
        service: Its topic and process.
        order_key: Calls of equal keys start in order: a parameter's name, or a pure function of all
            arguments by name. Evaluated when the call is made.
        timeout_s: How long one call may take.
        approval: Which calls a person has to approve.
        surface: Learns its schemas.

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
        order_key: OrderKey | None,
        timeout_s: float | None,
        surface: Surface,
        approval: ApproveIf = ASKS_NOBODY,
    ) -> None:
        what = f"tool {name}"
        functools.update_wrapper(self, function)
        check_timeout(what, timeout_s)
        check_name(f"{what}: service", service)
        self.function = function
        self.name = name
        self.safety = _safety(what, effect)
        self.service = service
        self.order_key = order_key
        self.timeout_s = timeout_s
        self.approval = approval
        self.verifier: Callable[..., Any] | None = None
        self._verifier_wants_call = False
        self._schemas = surface.schemas
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        known = hints(what, function)
        self.wants_call = bool(parameters) and _is_call(what, parameters[0], known)
        taken = parameters[1:] if self.wants_call else parameters
        _check(what, taken, known)
        for parameter in taken:
            surface.try_parameter(what, parameter.name, known[parameter.name])
        if isinstance(order_key, str) and order_key not in {p.name for p in taken}:
            raise SettingsError(f"{what}: order_key {order_key!r} is none of its parameters")
        self._signature = signature.replace(parameters=taken)
        approval.check(what, [p.name for p in taken])
        self._names = tuple(p.name for p in taken)
        self._an_argument = f"an argument of {what}"
        self._by_place = all(p.kind is p.POSITIONAL_OR_KEYWORD for p in taken)
        fields = [
            (p.name, known[p.name], ... if p.default is p.empty else p.default) for p in taken
        ]
        self.parameters: Shape[dict[str, Any]] = surface.learn(
            what,
            lambda: shape_of_parameters(
                fields, name=f"{title(name)}Parameters", namespace=surface.namespace
            ),
        )
        self.result: Shape[Any] = surface.shape(
            f"{what}: its result", known["return"], f"{title(name)}Result"
        )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, None, T]:
        """Call the tool from an agent.

        Raises:
            ToolError: It failed, after its retries.
            ToolTimeout: It did not answer in time; what it wrote is not undone.
            BudgetExceeded, Denied: It was never sent; a judge or a person said no.
            TypeError, ValueError: The arguments are not of its signature.
        """
        return self._ask(self._bound(args, kwargs))

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call's arguments by name; most give all by place or all by name, and `bind` is slow."""
        if self._by_place and not kwargs and len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        if not args and kwargs.keys() == self._signature.parameters.keys():
            return {name: kwargs[name] for name in self._names}
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    async def _ask(self, kwargs: dict[str, Any]) -> T:
        value = await ask(
            "tool",
            self.name,
            encoded(self._an_argument, self.parameters, kwargs),
            timeout_s=self.timeout_s,
            order_key=self.order_of(kwargs),
        )
        return self.decode_result(value)

    def order_of(self, kwargs: Mapping[str, Any]) -> str:
        """Return a call's order key; empty means any order."""
        if self.order_key is None:
            return ""
        key = kwargs[self.order_key] if isinstance(self.order_key, str) else self.order_key(kwargs)
        return "" if key is None else str(key)

    async def local(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function itself, here and now, without a log: for tests and scripts.

        A tool that takes a `call` gets one without dependencies; `invoke` takes one of your own.
        """
        call = (Call(deps=None),) if self.wants_call else ()
        return cast("T", await _run(self.function, call, args, kwargs))

    def verify(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Declare how to find out, after a crash, whether a call happened; it must not act itself.

        The function takes what the tool takes, and returns the tool's result if the call happened,
        `None` if it did not. Without one, or if it raises, a person is asked.

        Example:
            >>> import headwater
            >>> app = headwater.App("bank")
            >>> @app.tool(effect="irreversible")
            ... async def pay(account: str, cents: int) -> str: ...
            >>> @pay.verify
            ... async def paid(account: str, cents: int) -> str | None: ...

        Raises:
            SettingsError: The tool is not irreversible, has one already, or the parameters differ; or its
                result may be `None`, which would pass for a call that did not happen.
        """
        what = f"tool {self.name}: verify"
        if self.safety is not Safety.IRREVERSIBLE:
            raise SettingsError(f"{what} belongs to effect='irreversible'; others are called again")
        if self.verifier is not None:
            raise SettingsError(f"{what} is declared twice")
        if self._may_be_none():
            raise SettingsError(
                f"{what} says None of a call that did not happen, and the tool's result may be that too: "
                "have the tool return something"
            )
        parameters = [*inspect.signature(function).parameters.values()]
        calls = bool(parameters) and _is_call(what, parameters[0], hints(what, function))
        mine = [p.name for p in (parameters[1:] if calls else parameters)]
        if mine != [*self._signature.parameters]:
            raise SettingsError(
                f"{what} takes {', '.join(mine) or 'nothing'}; the tool takes "
                f"{', '.join(self._signature.parameters) or 'nothing'}"
            )
        self.verifier, self._verifier_wants_call = function, calls
        return function

    def _may_be_none(self) -> bool:
        try:
            self.encode(cast("T", None))
        except PoisonError:
            return False
        return True

    async def found(self, call: Call[Any], kwargs: Mapping[str, Any]) -> T | None:
        """Ask `verify` what a call led to, in the tools role; `None` if it never happened."""
        assert self.verifier is not None, "asked of tools that have one"
        first = (call,) if self._verifier_wants_call else ()
        return cast("T | None", await _run(self.verifier, first, (), kwargs))

    def decode(self, arguments: bytes) -> dict[str, Any]:
        """Read a call's arguments.

        Raises:
            PoisonError: They do not fit the parameters.
        """
        return self.parameters.decode(arguments, self._schemas)

    def shown(self, arguments: bytes) -> bytes:
        """Return a call's arguments as JSON, for people.

        Raises:
            PoisonError: They do not fit the parameters.
        """
        return pydantic_core.to_json(self.decode(arguments), bytes_mode="base64", fallback=str)

    async def invoke(self, call: Call[Any], kwargs: Mapping[str, Any]) -> T:
        """Run the function for a call, in the tools role."""
        first = (call,) if self.wants_call else ()
        return cast("T", await _run(self.function, first, (), kwargs))

    def encode(self, result: T) -> bytes:
        """Write a result.

        Raises:
            PoisonError: It does not fit the declared type.
        """
        return self.result.encode(result)

    def decode_result(self, value: bytes) -> T:
        """Read a result.

        Raises:
            ToolError: It is not of the declared type.
        """
        try:
            return cast("T", self.result.decode(value, self._schemas))
        except PoisonError as error:
            raise ToolError(
                f"tool {self.name} answered in another type: {error}", error=error.code
            ) from error


def _is_call(what: str, first: inspect.Parameter, known: Mapping[str, Any]) -> bool:
    """Say whether a first parameter is the call, by its type, or by its name where it has no type."""
    hint = known.get(first.name, Call)
    typed = Call in (hint, typing.get_origin(hint))
    if first.name == CALL and not typed:
        raise SettingsError(
            f"{what}: a first parameter named {CALL} is the call: type it headwater.Call, or rename it"
        )
    return typed and (first.name == CALL or first.name in known)


def _check(what: str, taken: Sequence[inspect.Parameter], known: Mapping[str, Any]) -> None:
    """Refuse parameters that cannot travel."""
    for parameter in taken:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise SettingsError(f"{what}: *{parameter.name} has no Avro form; name each parameter")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise SettingsError(
                f"{what}: {parameter.name} travels by name; it cannot be before the /"
            )
        if Call in (known.get(parameter.name), typing.get_origin(known.get(parameter.name))):
            raise SettingsError(f"{what}: the call, {parameter.name}, must be its first parameter")
        if parameter.name.startswith("_"):
            raise SettingsError(f"{what}: parameter {parameter.name} must not begin with _")
        if parameter.name not in known:
            raise SettingsError(f"{what}: parameter {parameter.name} needs a type hint")
    if "return" not in known:
        raise SettingsError(f"{what}: its result needs a type hint")


async def _run(
    function: Callable[..., Any], call: tuple[Call[Any], ...], args: Any, kwargs: Mapping[str, Any]
) -> Any:
    if inspect.iscoroutinefunction(function):
        return await cast("Awaitable[Any]", function(*call, *args, **kwargs))
    loop = asyncio.get_running_loop()
    near = tuple(_from_thread(one, loop) for one in call)
    occupy = occupying.get() or (lambda: _nothing)
    return await asyncio.to_thread(_occupied, occupy, function, *near, *args, **kwargs)


def _occupied(
    occupy: Callable[[], Callable[[], None]],
    function: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run a function, and say for how long its thread is taken."""
    leave = occupy()
    try:
        return function(*args, **kwargs)
    except StopIteration as error:  # which no future takes: its call would not end
        raise RuntimeError("the function raised StopIteration") from error
    finally:
        leave()


def _nothing() -> None:
    """Nobody watches the thread."""


def _from_thread(call: Call[Any], loop: asyncio.AbstractEventLoop) -> Call[Any]:
    """Return a call whose heartbeat and progress a thread may use; its progress need not be awaited."""

    def heartbeat(state: object) -> None:
        loop.call_soon_threadsafe(call.heartbeat, state)

    def progress(text: str) -> Awaitable[None]:
        async def publish() -> None:
            await call.progress(text)

        asyncio.run_coroutine_threadsafe(publish(), loop).result(PROGRESS_S_MAX)
        return _Published()

    return dataclasses.replace(call, heartbeat=heartbeat, progress=progress)


class _Published:
    """What a sync tool's progress returns: done already, and awaitable as an async tool's is."""

    def __await__(self) -> Any:
        """Be done."""
        return iter(())


def _safety(what: str, effect: str) -> Safety:
    if effect not in {"read", "write", "irreversible"}:
        raise SettingsError(f"{what}: effect is read, write or irreversible, not {effect!r}")
    return Safety(effect)
