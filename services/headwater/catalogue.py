"""The catalogue of an app: what its runs know of what it declares."""

from __future__ import annotations

from headwater.approvals.rules import EVERY_GROUP, GROUP
from headwater.contracts.messages import Limits, Spent
from headwater.core.execution import Asked
from headwater.core.prices import Prices
from headwater.runs.routes import ToolTerms
from headwater.sdk.app import App


class AppCatalogue:
    """What a run must know of its app: tools' terms, agents' limits, what models can cost."""

    def __init__(self, app: App, prices: Prices) -> None:
        self._app = app
        self._prices = prices
        self._terms: dict[str, ToolTerms] = {}

    def tool(self, name: str) -> ToolTerms | None:
        """Return a tool's terms."""
        found = self._terms.get(name)
        if found is None and (tool := self._app.tools.get(name)) is not None:
            found = ToolTerms(service=tool.service, safety=tool.safety.value)
            self._terms[name] = found
        return found

    def model(self, name: str) -> bool:
        """Say whether the app has such a model."""
        return name in self._app.models

    def limits(self, agent: str) -> Limits | None:
        """Return an agent's own limits."""
        found = self._app.agents.get(agent)
        return None if found is None else found.limits

    def shown(self, kind: str, name: str, arguments: bytes) -> bytes:
        """Return a call's arguments as JSON; a model's and a person's are JSON already."""
        if kind == "tool":
            tool = self._app.tools.get(name)
            if tool is None:  # asked by code that had it, and in doubt
                return b'{"bytes":%d}' % len(arguments)
            return tool.shown(arguments)
        if kind == "agent":
            shape = self._app.agents[name].input
            return shape.to_json(shape.decode(arguments, self._app.schemas))
        return arguments

    def decides(self, tool: str) -> str:
        """Return who decides about a tool's calls; of one that is gone, whoever may decide all."""
        found = self._app.tools.get(tool)
        return f"{GROUP}{EVERY_GROUP}" if found is None else found.approval.to

    def price_ceiling(self, asked: Asked) -> tuple[Spent | None, str]:
        """Return the most a model call can cost."""
        terms = asked.options["ceiling"]
        return self._prices.ceiling(
            asked.name, input_bytes=terms["input_bytes"], max_tokens=terms["max_tokens"]
        )
