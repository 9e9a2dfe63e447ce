"""Options that several commands share: written once, and given to a command as one value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any

Command = Callable[..., None]


def gathered(
    gather: Callable[..., Any], *, without: Collection[str] = ()
) -> Callable[[Command], Command]:
    """Give a command the options of another function, or of a dataclass, besides its own.

    Args:
        gather: Makes one value of its options, all of them named.
        without: Those of its options that the command does not have; they keep their defaults.

    Returns:
        Decorates a command, whose first argument is that value.
    """
    shared = inspect.signature(gather, eval_str=True).parameters
    taken = [one for name, one in shared.items() if name not in without]

    def decorate(command: Command) -> Command:
        own = [*inspect.signature(command, eval_str=True).parameters.values()][1:]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            value = gather(**{one.name: given.pop(one.name) for one in taken})
            command(value, **given)

        named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*taken, *own)]
        required = [one for one in named if one.default is inspect.Parameter.empty]
        optional = [one for one in named if one.default is not inspect.Parameter.empty]
        signature = inspect.Signature([*required, *optional])
        run.__signature__ = signature  # type: ignore[attr-defined] # what typer reads the options from
        run.__annotations__ = {one.name: one.annotation for one in (*required, *optional)}
        return run

    return decorate
