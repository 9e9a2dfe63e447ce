"""A run as the durable function sees it: what it may ask, publish, receive and draw."""

from __future__ import annotations

import hashlib
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Any, NoReturn
from uuid import UUID

from headwater.contracts.messages import Limits, Outcome
from headwater.core.execution import Asked, CallKind, Cut, Emitted, Signal
from headwater.durable.futures import Waiting
from headwater.durable.loop import Loop
from headwater.durable.streams import Streams
from headwater.errors import LivelockError

SIGNALS_MAX = 10_000


class ContinuingAs(BaseException):
    """Raised by `continue_as`, so that nothing after it runs; no error, and none that code may keep."""


_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
_DIGEST_BYTES = 16


class Session:
    """One run's side of its host; everything here belongs to the turn under way."""

    __slots__ = (
        "_calls", "_loop", "_mailbox", "_patches", "_recalled", "_receivers", "_streams", "asked",
        "calls_made", "closing", "continued", "cut", "emitted", "is_replay", "left_now",
        "patches_used", "withdrawn",
    )  # fmt: skip

    def __init__(self, loop: Loop, streams: Streams) -> None:
        self._loop = loop
        self._streams = streams
        self._calls: dict[int, Waiting] = {}
        self._receivers: list[Waiting] | None = None
        self._mailbox: deque[Signal] | None = None
        self._patches: dict[str, bool] | None = None
        self._recalled: Collection[str] = ()
        self.calls_made = 0
        """Number of the newest call."""
        self.continued: bytes | None = None
        """The task that the function wants to continue as."""
        self.patches_used: list[str] = []
        self.cut: Cut | None = None
        """The last cut, if there was one: which attempt this is, and what it may spend."""
        self.is_replay = False
        self.left_now: Callable[[], Limits | None] | None = None
        """Says what the run may still spend; there is nobody to say so between turns."""
        self.closing = False
        self.asked: list[Asked] = []
        self.emitted: list[Emitted] = []
        self.withdrawn: list[int] = []

    def ask(
        self,
        kind: CallKind,
        name: str,
        arguments: bytes,
        *,
        digest: bytes | None = None,
        options: Mapping[str, Any] = _NO_OPTIONS,
    ) -> Waiting:
        """Ask the host for a call; its number is given now.

        Args:
            kind: What is called.
            name: Its name.
            arguments: As the callee's codec wrote them.
            digest: 16 bytes over what the arguments mean; by default over the arguments.
            options: What the host needs besides.

        Returns:
            A future of the call's `Outcome`. Cancelling it withdraws the call.

        Raises:
            RuntimeError: Not from within the run's own turn.
        """
        if _get_running_loop() is not self._loop:
            self._check(f"{kind} {name}")
        if self.closing:
            return self._dead()
        number = self.calls_made = self.calls_made + 1
        if digest is None:
            digest = hashlib.blake2b(arguments, digest_size=_DIGEST_BYTES).digest()
        self.asked.append(
            Asked(
                number=number,
                kind=kind,
                name=name,
                arguments=arguments,
                digest=digest,
                options=options,
            )
        )
        waiting = self._calls[number] = Waiting(
            loop=self._loop, key=number, withdraw=self._withdraw
        )
        return waiting

    def emit(self, type: str, value: bytes) -> None:  # noqa: A002 - CloudEvents' word
        """Publish an event when the turn commits.

        Args:
            type: CloudEvents type.
            value: As its codec wrote it.
        """
        self._check(f"event {type}")
        if not self.closing:
            self.emitted.append(Emitted(type=type, value=value))

    def receive(self, name: str) -> Waiting:
        """Wait for the next signal of a name, the empty name meaning any; each goes to one receiver.

        Returns:
            A future of a `Signal`. Signals that came before anyone asked are kept, in order.
        """
        self._check(f"signal {name}")
        if self.closing:
            return self._dead()
        waiting = Waiting(
            loop=self._loop, key=name, withdraw=self._unreceive, restore=self._put_back
        )
        for place, signal in enumerate(self._mailbox or ()):
            if name in ("", signal.name):
                del self._mailbox[place]  # type: ignore[union-attr] # it has a place
                waiting.set_result(signal)
                return waiting
        if self._receivers is None:
            self._receivers = []
        self._receivers.append(waiting)
        return waiting

    def patched(self, id: str) -> bool:  # noqa: A002 - the public surface's word
        """Say whether the code behind a patch is to run; the first answer stays.

        It is yes for whatever is new, and is journaled then. A turn that is replayed answers yes if
        its entry says so: an entry without it was written by code from before the patch.
        """
        self._check(f"patch {id}")
        if self._patches is None:
            self._patches = {}
        known = self._patches.get(id)
        if known is None:
            if self.closing:
                return False
            known = self._patches[id] = not self.is_replay or id in self._recalled
            if known:
                self.patches_used.append(id)
        return known

    def continue_as(self, task: bytes) -> NoReturn:
        """End this journal and go on with a fresh one; nothing that runs after this counts.

        Raises:
            RuntimeError: Not from within the run's own turn.
        """
        self._check("continue_as")
        if not self.closing:
            self.continued = task
            self.closing = True
        raise ContinuingAs

    def left(self) -> Limits | None:
        """Return what the run may still spend as this turn began; the same in every replay.

        Returns:
            `None` if nobody knows: the turn is unwound, or code from before asked nothing of this.

        Raises:
            RuntimeError: Not from within the run's own turn.
        """
        self._check("what is left")
        return None if self.closing or self.left_now is None else self.left_now()

    @property
    def now_ms(self) -> int:
        """Run time: milliseconds since 1970, the same for the whole turn."""
        return self._loop.now_ms

    @property
    def random(self) -> Random:
        """The run's own generator, which no library draws from."""
        return self._streams.own

    def uuid(self) -> UUID:
        """Return the run's next UUID."""
        return self._streams.uuid()

    @property
    def replaying(self) -> bool:
        """Whether what is logged now was logged before, or is of no consequence."""
        return self.is_replay or self.closing

    # The host's side

    def recall(self, *, above: int, patched: Collection[str]) -> None:
        """Learn what the journal knows of the turn that is delivered next."""
        self.calls_made = max(self.calls_made, above)
        self._recalled = patched

    def answer(self, number: int, outcome: Outcome) -> None:
        """Answer a call; one that nobody waits for is ignored."""
        waiting = self._calls.pop(number, None)
        if waiting is not None:
            waiting.set_result(outcome)

    def park(self, number: int, *, parked: bool) -> None:
        """Say that a call waits for a person, or no longer: what limits its time is told."""
        waiting = self._calls.get(number)
        if waiting is not None and waiting.parked is not None:
            waiting.parked(parked)

    def signal(self, signal: Signal) -> None:
        """Hand a signal to the first receiver of its name, or keep it.

        Raises:
            LivelockError: Too many are kept already.
        """
        for place, waiting in enumerate(self._receivers or ()):
            if waiting.key in ("", signal.name):
                del self._receivers[place]  # type: ignore[union-attr] # it has a place
                waiting.set_result(signal)
                return
        if self._mailbox is None:
            self._mailbox = deque()
        if len(self._mailbox) >= SIGNALS_MAX:
            raise LivelockError(
                f"{SIGNALS_MAX} signals wait that the function does not receive, the next being "
                f"{signal.name!r}: receive them in the function, or stop sending them"
            )
        self._mailbox.append(signal)

    def unreceived(self) -> tuple[Signal, ...]:
        """Return the signals that nobody has received, in order."""
        return tuple(self._mailbox or ())

    def receiving(self) -> Sequence[str]:
        """Return the names that are waited for, each once, oldest first."""
        if not self._receivers:
            return ()
        return tuple(dict.fromkeys(waiting.key for waiting in self._receivers))

    def forget(self) -> None:
        """Let go of whatever waits: the run is over."""
        self._calls.clear()
        self._receivers = self._mailbox = None
        self.asked, self.emitted, self.withdrawn, self.patches_used = [], [], [], []

    def _withdraw(self, number: int) -> None:
        del self._calls[number]
        self.withdrawn.append(number)

    def _unreceive(self, name: str) -> None:
        assert self._receivers is not None, "a receiver waits"
        self._receivers = [waiting for waiting in self._receivers if not waiting.cancelled()]

    def _put_back(self, signal: Signal) -> None:
        """Keep a signal whose receiver was cancelled before it took it."""
        if self._mailbox is None:
            self._mailbox = deque()
        self._mailbox.appendleft(signal)

    def _dead(self) -> Waiting:
        """Return a future that nobody answers: what waits for it is cancelled once more."""
        return Waiting(loop=self._loop, key=None, withdraw=_ignore)

    def _check(self, what: str) -> None:
        if _get_running_loop() is not self._loop:
            raise RuntimeError(
                f"{what}: asked from outside the run's own turn, perhaps from a thread or another run; "
                "an agent's calls are made in its own coroutines"
            )


def _ignore(key: object) -> None:
    """Nobody is to be told."""


def current() -> Session:
    """Return the session of the durable function that runs now.

    Raises:
        RuntimeError: None does.
    """
    loop = _get_running_loop()
    if isinstance(loop, Loop):
        session = loop.session
        assert isinstance(session, Session), "a running loop has its session"
        return session
    raise RuntimeError(
        "no agent is running here: agents, tools and models are awaited inside a function declared with "
        "@app.agent (outside one, call a tool's own function with tool.local(...))"
    )


def in_durable() -> bool:
    """Whether the caller is inside a durable function."""
    return isinstance(_get_running_loop(), Loop)
