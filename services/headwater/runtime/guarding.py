"""Guarding: users' code runs at a post, or apart from everything else where it is suspected."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from headwater.contracts.messages import Ask, Failed, InDoubt
from headwater.contracts.records import Record
from headwater.core.effector import Attempt, Call, Done, Effector, Safety, Verifier, occupying
from headwater.durable.failure import ToldError
from headwater.runtime.apart import Apart, DiedError
from headwater.runtime.lines import Perform
from headwater.runtime.posts import Kind, Posts
from headwater.runtime.retrying import AbandonedError
from headwater.runtime.suspects import Suspects

T = TypeVar("T")


class Plain:
    """Makes calls here, whatever they do.

    Args:
        effector: What performs.
    """

    def __init__(self, effector: Effector) -> None:
        self._effector = effector

    def stop(self) -> None:
        """Take no more time than the calls under way take."""

    async def perform(
        self, record: Record, call: Call, ask: Ask, attempt: Attempt
    ) -> Done | Failed | InDoubt:
        """Make a call."""
        return await self._effector.perform(call, ask, attempt)

    async def verify(
        self, record: Record, call: Call, ask: Ask, attempt: Attempt
    ) -> Done | InDoubt | None:
        """Find out whether a call happened; in doubt where the effector cannot."""
        if not isinstance(self._effector, Verifier):
            return InDoubt(since_ms=0)
        return await self._effector.verify(call, ask, attempt)


class AtPost(Plain):
    """Makes calls here, at posts.

    Args:
        effector: What performs.
        posts: The posts of this process.
    """

    def __init__(self, effector: Effector, posts: Posts) -> None:
        super().__init__(effector)
        self._posts = posts

    async def perform(
        self, record: Record, call: Call, ask: Ask, attempt: Attempt
    ) -> Done | Failed | InDoubt:
        """Make a call at a post."""
        return await self._at(record, call, super().perform(record, call, ask, attempt))

    async def verify(
        self, record: Record, call: Call, ask: Ask, attempt: Attempt
    ) -> Done | InDoubt | None:
        """Find out at a post whether a call happened."""
        return await self._at(record, call, super().verify(record, call, ask, attempt))

    async def _at(self, record: Record, call: Call, work: Awaitable[T]) -> T:
        posts = self._posts
        post = posts.take(Kind.CALL, record.partition, record.offset, call.id)
        token = occupying.set(functools.partial(_occupy, posts, post, posts.serial(post)))
        try:
            return await work
        finally:
            occupying.reset(token)
            posts.leave(post)


class Guarded(AtPost):
    """Makes calls at posts, and those that are suspected apart.

    Args:
        effector: What performs.
        posts: The posts of this process.
        suspects: Who is suspected.
        apart: Where suspects are tried.
    """

    def __init__(
        self, effector: Effector, *, posts: Posts, suspects: Suspects, apart: Apart
    ) -> None:
        super().__init__(effector, posts)
        self._suspects = suspects
        self._apart = apart

    def stop(self) -> None:
        """Leave those that are tried apart to the next owner."""
        self._apart.stop()

    async def perform(
        self, record: Record, call: Call, ask: Ask, attempt: Attempt
    ) -> Done | Failed | InDoubt:
        """Make a call.

        Raises:
            ProcessKillerError: It is not made: processes die of it.
            ToldError: An irreversible one had a process die of it, so that nobody knows what it did.
        """
        if self._suspects.find(record) is None:
            return await super().perform(record, call, ask, attempt)
        found = await self._tried(record, call, ask, attempt, verify=False)
        assert found is not None, "only what is verified may turn out not to have happened"
        return found

    async def verify(
        self, record: Record, call: Call, ask: Ask, attempt: Attempt
    ) -> Done | InDoubt | None:
        """Find out whether a call happened.

        Raises:
            ProcessKillerError: Nobody asks any more: processes die of it.
        """
        if self._suspects.find(record) is None:
            return await super().verify(record, call, ask, attempt)
        found = await self._tried(record, call, ask, attempt, verify=True)
        assert not isinstance(found, Failed), "a verification never fails so"
        return found

    async def _tried(
        self, record: Record, call: Call, ask: Ask, attempt: Attempt, *, verify: bool
    ) -> Done | Failed | InDoubt | None:
        """Try a call apart, again after each death, until it survives or has had its deaths."""

        def work(number: int) -> Perform:
            return Perform(
                number=number,
                effector=self._effector.name,
                verify=verify,
                record=record,
                call=call,
                ask=ask,
                attempt=attempt.id,
                tried=attempt.number,
                last_state=attempt.last_state,
            )

        once = call.safety is Safety.IRREVERSIBLE and not verify

        async def blame(cause: str) -> bool:
            return await self._suspects.died(record, cause) and not once

        suspect = self._suspects.check(record)
        alone = suspect is not None and suspect.alone > 0
        try:
            found = await self._apart.among(work, blame, attempt=attempt, alone=alone)
        except DiedError as died:
            if once:
                words = f"a process died in the middle of it ({died.cause})"
                raise ToldError("ProcessDied", words) from died
            self._suspects.check(record)
            raise
        except AbandonedError:
            raise
        except Exception:
            await self._suspects.clear(record)
            raise
        await self._suspects.clear(record)
        return found


def _occupy(posts: Posts, post: int, serial: int) -> Callable[[], None]:
    return functools.partial(posts.release, post) if posts.hold(post, serial) else _nothing


def _nothing() -> None:
    """There is no post to leave."""
