"""Rules: whether a decision counts; asked where it is taken, and where somebody only wants to know."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from headwater.approvals.rows import Approval
from headwater.contracts.approvals import Decide, Decision

GROUP = "group:"
EVERY_GROUP = "*"
ENDS: Mapping[str, Decision] = {
    "approve": "approved",
    "deny": "denied",
    "happened": "happened",
    "not-happened": "not-happened",
    "give-up": "given-up",
}
"""Each verdict, and the status it leads to."""
_FITS = {
    "agent": frozenset({"approve", "deny"}),
    "tool": frozenset({"approve", "deny"}),
    "doubt": frozenset({"happened", "not-happened", "give-up"}),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A decision, and whose word it is.

    Args:
        decide: The decision.
        by: Who made it; empty if nobody knows.
        now_ms: When it is looked at.
    """

    decide: Decide
    by: str
    now_ms: int


class Rules:
    """What a decision has to be to count.

    It counts once; before the petition expires; if it is about the arguments that were asked about; and
    from somebody who may decide and did not ask for the run.
    """

    def again(self, row: Approval, said: Said) -> bool:
        """Say whether it is the decision that was taken, once more: that changes nothing."""
        ended = (row.state, row.by, row.petition.digest)
        return ended == (ENDS[said.decide.verdict], said.by, said.decide.digest)

    def unfit(self, row: Approval, said: Said) -> str:
        """Return why a decision cannot be taken, in words for who made it; empty if it can."""
        checks = (self.stale, self.late, self.foreign, self.other)
        return next((wrong for check in checks if (wrong := check(row, said))), "")

    def stale(self, row: Approval, said: Said) -> str:
        """A decision counts once."""
        if row.state == "open":
            return ""
        by = f" by {row.by}" if row.by else ""
        return f"it was {row.state}{by} already"

    def late(self, row: Approval, said: Said) -> str:
        """Nothing is decided after it expired, whether or not its timer has come round."""
        return "it has expired" if said.now_ms >= row.petition.expires_ms else ""

    def foreign(self, row: Approval, said: Said) -> str:
        """Who decides is known, was asked, and is not who asked for the run."""
        actor, petition = said.by, row.petition
        if not actor:
            return "nobody knows who decides: use a token that names an actor"
        if actor == petition.requester:
            return f"{actor} asked for the run, and cannot decide about it"
        if not petition.to.startswith(GROUP):
            return f"{petition.to} decides this" if petition.to not in ("", actor) else ""
        group = petition.to.removeprefix(GROUP)
        if {group, EVERY_GROUP}.isdisjoint(said.decide.groups):
            return f"somebody of the group {group} decides this, and {actor} is not in it"
        return ""

    def other(self, row: Approval, said: Said) -> str:
        """A decision is about what was asked, and answers it."""
        petition, decide = row.petition, said.decide
        if decide.digest != petition.digest:
            return "it is about other arguments than those that were asked about: look again"
        if decide.verdict not in _FITS[petition.about]:
            fitting = ", ".join(sorted(_FITS[petition.about]))
            return f"{decide.verdict} is no answer to it; these are: {fitting}"
        return ""
