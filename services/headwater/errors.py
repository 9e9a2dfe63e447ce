"""What can go wrong, and what the platform does about it.

Four kinds steer the loops: `TransientError` is retried, `PoisonError` quarantined, `SettingsError`
stops the start, and anything else is our own bug, which stops the worker while its offsets stay.
The others are answers that an agent's code can catch.
"""

from __future__ import annotations


class HeadwaterError(Exception):
    """Root of every error that headwater raises on purpose."""


class TransientError(HeadwaterError):
    """Something is away for now; the same attempt may succeed later.

    Args:
        *args: What is away, in words.
        retry_after_s: How long it asks to be left alone, in seconds.
    """

    def __init__(self, *args: object, retry_after_s: float = 0.0) -> None:
        super().__init__(*args)
        self.retry_after_s = retry_after_s


UNWRITABLE = "unwritable"
"""Code of what the log refuses: what a record leads to. The record itself may be kept as a row."""
UNKEEPABLE = "unkeepable"
"""Code of what the log refuses even then: neither may be kept."""


class PoisonError(HeadwaterError):
    """A record that nobody can take; it goes to quarantine, byte for byte.

    Args:
        code: Short kebab-case class of the refusal, for example `unknown-schema`.
        message: What is wrong with which field, in words an operator can act on.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    @property
    def name(self) -> str:
        """The error's name where it is an answer to a call, or the end of a run."""
        return self.code


class ProcessKillerError(PoisonError):
    """A record that processes die of; it is not run again.

    Args:
        message: Which deaths, in words.
    """

    CODE = "process-killer"

    def __init__(self, message: str) -> None:
        super().__init__(self.CODE, message)

    @property
    def name(self) -> str:
        """What an agent sees as the name of the error."""
        return "ProcessKiller"


class SettingsError(HeadwaterError):
    """A setting, topic or app that cannot work; the message names it and says what to do."""


class BlobLostError(HeadwaterError):
    """A value by reference is not in the store of blobs, or is another: somebody deleted or changed it.

    Args:
        name: The blob.
        tenant: Whose it is.
        why: What is wrong.
    """

    def __init__(self, name: str, tenant: str, why: str) -> None:
        super().__init__(
            f"blob {name} of tenant {tenant} {why}: put it back from the store's versions or backup"
        )
        self.name, self.tenant = name, tenant


class WorkRefusedError(HeadwaterError):
    """The log refused this work twice, though its claims held: some record in it cannot be written."""


class NonDeterminismError(HeadwaterError):
    """Replayed code asked for something else than the journal has.

    Args:
        number: The call's number.
        recorded: `kind name` in the journal.
        actual: `kind name` that today's code asked for.
    """

    def __init__(self, number: int, recorded: str, actual: str) -> None:
        super().__init__(
            f"call {number} is recorded as {recorded}, but the code now asks for {actual}: "
            "restore the code this run began with, or cancel the run"
        )
        self.number, self.recorded, self.actual = number, recorded, actual


class ConfinementError(HeadwaterError):
    """Agent code tried to touch the world directly; it says which way and to use a tool."""


class LivelockError(HeadwaterError):
    """Agent code spun without waiting for anything, past the cap on one turn's callbacks."""


class CallError(HeadwaterError):
    """A call that an agent made did not answer with a value.

    Args:
        message: The effector's own words, redacted.
        error: Name of the error's class where it happened.
        call_id: The call, `run id/number`; empty when it was never sent.
    """

    def __init__(self, message: str, *, error: str = "", call_id: str = "") -> None:
        super().__init__(message)
        self.error = error
        self.call_id = call_id


class ToolError(CallError):
    """A tool failed, after its retries."""


class ToolTimeout(ToolError, TimeoutError):  # noqa: N818 - the public surface fixes this name
    """A tool did not answer in time; what it wrote meanwhile is not undone."""


class ModelError(CallError):
    """A model failed, after its retries, or could not be made to answer in the type asked for."""


class AgentError(CallError):
    """A child agent failed or was cancelled."""


class BudgetExceeded(CallError):  # noqa: N818 - the public surface fixes this name
    """The call would pass what the run may still spend; nothing was sent."""


class Denied(CallError):  # noqa: N818 - the public surface fixes this name
    """The judge, or a person, said no; nothing was sent.

    Its `error` is `Denied`; `Expired` if nobody said anything in time, or `Withdrawn` if the run had failed.
    """


class DeadlineExceeded(CallError):  # noqa: N818 - the public surface fixes this name
    """The task's deadline passed."""


class NotDone(TransientError):  # noqa: N818 - the public surface fixes this name
    """A tool's word that nothing happened in the world, so the call may be repeated.

    It is tried again in place as any `TransientError` is. For an irreversible tool no other error
    permits that: after one, `verify` is asked, or a person.
    """
