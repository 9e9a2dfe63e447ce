"""Topic names: `<ns>.<kind>.<name>.v<major>`, so that one prefixed ACL covers a namespace."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """Names of one namespace's topics."""

    namespace: str

    def of(self, kind: str, name: str, major: int = 1) -> str:
        """Return a topic's full name."""
        return f"{self.namespace}.{kind}.{name}.v{major}"

    def cmd(self, agent: str) -> str:
        """Tasks come in here."""
        return self.of("cmd", agent)

    def inbox(self, name: str) -> str:
        """A decider's inbox."""
        return self.of("inbox", name)

    def req(self, name: str) -> str:
        """An effector's requests: `model`, `tool.<service>`."""
        return self.of("req", name)

    def receipt(self, name: str) -> str:
        """What an effector noted of its calls: `model`, `tool.<service>`."""
        return self.of("receipt", name)

    def evt(self, name: str) -> str:
        """Events."""
        return self.of("evt", name)

    def ctl(self, name: str) -> str:
        """The platform's own compacted settings."""
        return self.of("ctl", name)

    def state(self, name: str) -> str:
        """A decider's rows."""
        return self.of("state", name)

    def dlq(self, agent: str) -> str:
        """Dead letters."""
        return self.of("dlq", agent)
