"""Payloads: what open runs' journals hold of users' types, and whether today's types can read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from headwater import histories
from headwater.contracts import compatibility, frames
from headwater.contracts.catalog import Schemas
from headwater.contracts.shape import Shape
from headwater.histories import History
from headwater.sdk.app import App

_HEAD = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """Values of open runs that today's types cannot read.

    Args:
        agent: Whose runs.
        what: `its task`, or whose result.
        fields: Where, as `Record.field`; empty where the schema itself is unknown.
        reason: Why, in words.
        runs: How many.
    """

    agent: str
    what: str
    fields: tuple[str, ...]
    reason: str
    runs: int

    def __str__(self) -> str:
        where = f" ({', '.join(self.fields)})" if self.fields else ""
        return (
            f"agent {self.agent}, {self.runs} open {'run' if self.runs == 1 else 'runs'}: {self.what}"
            f"{where} cannot be read any more: {self.reason}"
        )


class Payloads:
    """Takes journals, and says what of them cannot be read.

    Args:
        app: The app as it is now.
        schemas: Every schema that is known.
    """

    def __init__(self, app: App, schemas: Schemas) -> None:
        self._app = app
        self._schemas = schemas
        self._known: dict[tuple[bytes, bytes], tuple[tuple[str, ...], str] | None] = {}
        self._runs: dict[tuple[str, str, tuple[str, ...], str], set[str]] = {}

    def take(self, history: History) -> None:
        """Look at one journal."""
        agent = self._app.agents.get(history.agent)
        if agent is None:
            return
        for what, shape, value in self._values(history, agent.input):
            found = self._reads(shape, value)
            if found is not None:
                place = (history.agent, what, *found)
                self._runs.setdefault(place, set()).add(history.run.run)

    def unread(self) -> list[Unread]:
        """Return what cannot be read, the most runs first."""
        found = [
            Unread(agent=agent, what=what, fields=fields, reason=reason, runs=len(runs))
            for (agent, what, fields, reason), runs in self._runs.items()
        ]
        return sorted(found, key=lambda one: (-one.runs, one.agent, one.what))

    def _values(
        self, history: History, task: Shape[Any]
    ) -> Iterator[tuple[str, Shape[Any], bytes]]:
        """Yield what is decoded again when a run is replayed: its task, and results that are typed."""
        given = history.opened.input
        assert isinstance(given, bytes), "a history has its values in it"
        yield "its task", task, given
        for kind, name, value in histories.values(history.entries):
            if kind == "tool" and (tool := self._app.tools.get(name)) is not None:
                yield f"the result of tool {name}", tool.result, value
            elif kind == "agent" and (child := self._app.agents.get(name)) is not None:
                yield f"the result of agent {name}", child.output, value

    def _reads(self, shape: Shape[Any], value: bytes) -> tuple[tuple[str, ...], str] | None:
        own = value[2:_HEAD]
        if value[:2] != frames.SINGLE or own == shape.fingerprint:
            return None
        place = (own, shape.fingerprint)
        if place not in self._known:
            self._known[place] = self._judge(own, shape)
        return self._known[place]

    def _judge(self, own: bytes, shape: Shape[Any]) -> tuple[tuple[str, ...], str] | None:
        if not self._schemas.knows(own):
            return (), f"nobody knows the schema {own.hex()} that it was written with"
        for one in compatibility.breaks(self._schemas.schema(own), shape.schema):
            if one.direction == "backward":
                return one.fields, one.reason
        return None
