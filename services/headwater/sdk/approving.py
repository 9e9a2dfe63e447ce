"""Approving: which of a tool's calls a person has to approve before they are sent."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from headwater.core.execution import Asked
from headwater.core.judge import EXPIRES_S, Allow, AskPerson, Deny, Judge, Verdict
from headwater.core.messages import Meta
from headwater.errors import SettingsError

_DETAIL_MAX = 500


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ApproveIf:
    """When a person is asked, whom, and how long they may take.

    Args:
        when: Told a call's arguments in their order; `None` for never.
        to: `group:<name>`, an actor, or empty for anybody but who asked for the run.
        expires_s: How long they may take.
    """

    when: Callable[..., object] | None = None
    to: str = ""
    expires_s: float = EXPIRES_S

    def check(self, what: str, parameters: Sequence[str]) -> None:
        """Refuse terms that cannot work.

        Raises:
            SettingsError: They cannot.
        """
        if not 0 < self.expires_s < float("inf"):
            raise SettingsError(
                f"{what}: approve_expires_s must be over 0 seconds, not {self.expires_s}"
            )
        if self.to == "group:":
            raise SettingsError(f"{what}: approve_to names a group: group:payments, not 'group:'")
        if self.when is None:
            return
        if inspect.iscoroutinefunction(self.when):
            raise SettingsError(
                f"{what}: approve_if is decided where the run is; it cannot be async"
            )
        try:
            inspect.signature(self.when).bind(*parameters)
        except TypeError as error:
            told = ", ".join(parameters) or "nothing"
            raise SettingsError(f"{what}: approve_if is told {told}: {error}") from error


ASKS_NOBODY = ApproveIf()


class Judged(Protocol):
    """A tool, as far as it is judged (`sdk.tools.Tool`)."""

    @property
    def approval(self) -> ApproveIf:
        """Which of its calls a person has to approve."""
        ...

    def decode(self, arguments: bytes) -> dict[str, Any]:
        """Read a call's arguments."""
        ...


class Approving:
    """A judge over another: what that allows, a tool's own terms may leave to a person.

    Args:
        judge: Asked first.
        tools: By name.
        version: The app's: its terms are part of its code.
    """

    def __init__(self, judge: Judge, tools: Mapping[str, Judged], version: str) -> None:
        self._judge = judge
        self._tools = tools
        self.version = f"{judge.version} {version}"

    def judge(self, call: Asked, meta: Meta) -> Verdict:
        """Decide; a call whose tool cannot say whether it needs a person is denied."""
        verdict = self._judge.judge(call, meta)
        tool = self._tools.get(call.name) if call.kind == "tool" else None
        if tool is None or tool.approval.when is None or not isinstance(verdict, Allow):
            return verdict
        try:
            asks = tool.approval.when(*tool.decode(call.arguments).values())
        except Exception as error:  # noqa: BLE001 - whatever the app's code raises denies
            words = f"{type(error).__name__}: {error}"[:_DETAIL_MAX]
            return Deny(f"approve_if of tool {call.name} raised {words}")
        if not asks:
            return verdict
        return AskPerson(
            words=f"call {call.name}", to=tool.approval.to, expires_s=tool.approval.expires_s
        )
