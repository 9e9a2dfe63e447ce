"""Answering: one request tried until there is a reply to it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Awaitable, Callable

from headwater.contracts.messages import Answered, Ask, Failed, InDoubt, Outcome, Reply, Token
from headwater.contracts.records import Draft, Record
from headwater.core.blobs import Blobs, ref_of
from headwater.core.decider import Sent
from headwater.core.effector import Attempt, Call, Done, Effector, Safety
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta, digest
from headwater.durable.failure import DETAIL_MAX, describe, redact
from headwater.errors import BlobLostError, NotDone, PoisonError, TransientError
from headwater.log.port import Claim
from headwater.runtime.guarding import Plain
from headwater.runtime.retrying import AbandonedError, Retrying
from headwater.runtime.room import Room
from headwater.tracing import context

logger = logging.getLogger(__name__)

VALUE_BYTES_MAX = 512 * 1024
"""Largest answer; a larger one is answered as an error."""
TOKEN_CHARS_MAX = 32 * 1024
"""Longest text of one token; a longer piece becomes several."""


@dataclasses.dataclass(slots=True, eq=False)
class Item:
    """One request in hand; its claim changes when its partition is lost and comes back meanwhile."""

    claim: Claim
    record: Record
    meta: Meta
    ask: Ask
    begun: bool = False
    ended: bool = False
    until_ms: int = 0
    """How long the lease lasts that others can read; 0 for none."""

    @property
    def call_id(self) -> str:
        """The idempotency key."""
        return f"{self.ask.run}/{self.ask.number}"

    @property
    def safety(self) -> Safety:
        """What may be done again."""
        return Safety(self.ask.safety)


class _UnsureError(Exception):
    """An irreversible call ended so that it may have happened.

    Args:
        failed: How it ended.
    """

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.error)
        self.failed = failed


class Answering:
    """Makes replies.

    Args:
        effector: What performs.
        envelope: Seals replies and tokens.
        append: Writes one record to the log.
        retrying: How a call is tried again.
        tokens: Topic of streamed pieces.
        clock: Wall clock in milliseconds.
        quiet_s_max: How long a try may go on without a heartbeat.
        draw: Draws an attempt's id.
        blobs: Where large values are; `None` if there is no such store.
        doing: Makes the calls; by default here, whatever they do.
    """

    def __init__(
        self,
        *,
        effector: Effector,
        envelope: Envelope,
        append: Callable[[Draft], Awaitable[object]],
        retrying: Retrying,
        tokens: str,
        clock: Callable[[], int],
        quiet_s_max: float,
        draw: Callable[[], str] = lambda: uuid.uuid4().hex,
        blobs: Blobs | None = None,
        doing: Plain | None = None,
    ) -> None:
        self.kind = effector.name.partition(".")[0]
        self._doing = doing or Plain(effector)
        self._envelope = envelope
        self._append = append
        self._retrying = retrying
        self._tokens = tokens
        self._clock = clock
        self._quiet_s_max = quiet_s_max
        self._draw = draw
        self._blobs = blobs
        self._room = Room(0 if blobs is None else blobs.held_bytes_max)

    def stop(self) -> None:
        """Begin nothing that others can do."""
        self._doing.stop()

    async def reply(
        self,
        item: Item,
        *,
        wanted: Callable[[], bool],
        attempt: str = "",
        again: Callable[[], bool] | None = None,
    ) -> Reply:
        """Try a call until there is an answer; whatever the effector's code raises is one.

        Args:
            item: The request.
            wanted: Whether this process is still the one to ask what happened.
            attempt: Id of the attempt, if it was noted already.
            again: Whether it is still the one to try it again; by default where it is wanted.

        Raises:
            PoisonError: The request cannot be understood.
            AbandonedError: It is another process's by now.
        """
        attempt_id, began_ms = attempt or self._draw(), self._clock()
        try:
            result = await self._tries(item, attempt_id, again or wanted)
        except _UnsureError as unsure:
            found = await self.settle(item, attempt_id, began_ms, wanted=wanted)
            return found or await self._reply(item, attempt_id, unsure.failed)
        return await self._reply(item, attempt_id, result)

    async def settle(
        self, item: Item, attempt_id: str, since_ms: int, *, wanted: Callable[[], bool]
    ) -> Reply | None:
        """Answer an irreversible call that may have happened: as `verify` finds, or in doubt.

        Args:
            item: The request.
            attempt_id: Of the attempt that nobody knows the end of.
            since_ms: When it began.
            wanted: Whether this process is still the one to ask.

        Returns:
            `None` if it did not happen.

        Raises:
            AbandonedError: It is another process's by now.
        """
        result: Done | InDoubt | None = InDoubt(since_ms=since_ms)

        async def one(number: int) -> Done | InDoubt | None:
            attempt = self._attempt(item, attempt_id, number, [None], lambda: None)
            async with asyncio.timeout(self._quiet_s_max):
                ask = await self._whole(item)
                return await self._doing.verify(item.record, self._call(item), ask, attempt)

        try:
            result = await self._retrying.call(
                self._title(item), one, within_s=self._quiet_s_max, wanted=wanted
            )
        except AbandonedError:
            raise
        except BaseException as error:
            if not _is_its_own(error):
                raise
            logger.exception("whether %s happened cannot be found out", item.call_id)
        if isinstance(result, InDoubt):
            if attempt_id not in item.ask.undone:  # else a person has said it, and it is made
                logger.warning(
                    "nobody knows whether %s of %s happened", item.ask.name, item.call_id
                )
            result = InDoubt(since_ms=since_ms)
        return None if result is None else await self._reply(item, attempt_id, result)

    async def _reply(self, item: Item, attempt_id: str, result: Done | Failed | InDoubt) -> Reply:
        ask = item.ask
        usage = result.usage if isinstance(result, Done) else None
        outcome: Outcome = (
            result if not isinstance(result, Done) else await self._kept(item, result)
        )
        return Reply(
            run=ask.run, number=ask.number, attempt=attempt_id, outcome=outcome, usage=usage
        )

    async def _kept(self, item: Item, done: Done) -> Answered | Failed:
        """Return an answer as it travels: a large one is in the store before anybody is told of it."""
        size, blobs = len(done.value), self._blobs
        bytes_max = VALUE_BYTES_MAX if blobs is None else blobs.bytes_max
        if size > bytes_max:
            return Failed(
                error="TooLarge",
                detail=f"the answer of {item.ask.name} has {size} bytes; at most {bytes_max} travel",
            )
        if blobs is None or size <= blobs.inline_bytes_max:
            return Answered(value=done.value)

        async def put() -> None:
            await asyncio.wrap_future(blobs.put(item.meta.tenant, done.value))

        await self._retrying.forever(f"the answer of {item.ask.name}", put)
        return Answered(value=ref_of(done.value))

    async def _whole(self, item: Item) -> Ask:
        """Return a request with its arguments.

        Raises:
            TransientError: The store of blobs is away.
            BlobLostError: It has no such value.
        """
        ask = item.ask
        if isinstance(ask.arguments, bytes):
            return ask
        if self._blobs is None:
            raise TransientError(
                f"the arguments of {ask.name} are in a store of blobs, and this process has none: set "
                "HEADWATER_BLOBS__URL to the one of the other processes"
            )
        value = await asyncio.wrap_future(self._blobs.get(item.meta.tenant, ask.arguments.name))
        return dataclasses.replace(ask, arguments=value)

    def refusal(self, item: Item, error: PoisonError) -> Reply:
        """Return the answer to a request that went to quarantine."""
        outcome = Failed(error=error.name, detail=redact(str(error))[:DETAIL_MAX])
        ask = item.ask
        return Reply(run=ask.run, number=ask.number, attempt=self._draw(), outcome=outcome)

    def seal(self, item: Item, reply: Reply) -> Draft:
        """Return a reply's record: to the run's inbox partition, caused by the request."""
        to, meta = item.ask.reply_to, item.meta
        own = digest(item.call_id, reply.attempt).hex()
        trace = context.below(meta.traceparent, context.call_span_id(item.call_id, reply.attempt))
        return self._envelope.seal(
            Sent(
                message=reply,
                to=Address(to.topic, to.run, to.partition),
                meta=dataclasses.replace(meta, id=own, causation_id=meta.id, traceparent=trace),
                headers=(("ce_runid", to.run.encode()),),
            )
        )

    async def _tries(
        self, item: Item, attempt_id: str, wanted: Callable[[], bool]
    ) -> Done | Failed | InDoubt:
        """Try, and try again in place while the world is away."""
        ask = item.ask
        left_s = (ask.not_after_ms - self._clock()) / 1000
        if left_s <= 0:
            over = f"its time was over {-left_s:g} s before its turn"
            if item.safety is Safety.WRITE and not ask.order_key:  # nobody notes that it begins
                detail = (
                    f"{ask.name} was not begun here: {over}; what others did of it is not undone"
                )
            else:
                detail = f"{ask.name} was not begun: {over}"
            return Failed(error="DeadlineExceeded", detail=detail)
        states: list[object] = [None]

        async def one(number: int) -> Done | Failed | InDoubt:
            return await self._once(item, attempt_id, number, states)

        try:
            return await self._retrying.call(self._title(item), one, within_s=left_s, wanted=wanted)
        except TransientError as error:
            words = redact(str(error))[:DETAIL_MAX]
            logger.warning("%s: given up, its time is over: %s", self._title(item), words)
            return Failed(error=type(error).__name__, detail=words)

    def _title(self, item: Item) -> str:
        return f"{self.kind} {item.ask.name}, call {item.call_id}"

    async def _once(
        self, item: Item, attempt_id: str, number: int, states: list[object]
    ) -> Done | Failed | InDoubt:
        """Perform once; a call that says nothing for too long is ended."""
        arguments = item.ask.arguments
        async with self._room.held(0 if isinstance(arguments, bytes) else arguments.size):
            try:
                ask = await self._whole(item)
            except BlobLostError as error:
                return Failed(error="BlobLost", detail=str(error))
            return await self._perform(item, ask, attempt_id, number, states)

    async def _perform(
        self, item: Item, ask: Ask, attempt_id: str, number: int, states: list[object]
    ) -> Done | Failed | InDoubt:
        quiet = asyncio.timeout(self._quiet_s_max)
        loop, going_on = asyncio.get_running_loop(), True

        def heard() -> None:
            """Put the end off; who was left behind may still speak, and changes nothing."""
            if going_on and not quiet.expired():
                quiet.reschedule(loop.time() + self._quiet_s_max)

        attempt = self._attempt(item, attempt_id, number, states, heard)
        try:
            async with quiet:
                return await self._doing.perform(item.record, self._call(item), ask, attempt)
        except (NotDone, PoisonError, AbandonedError):
            raise
        except TransientError as error:
            if item.safety is Safety.IRREVERSIBLE:
                return self._failed(item, error)
            raise
        except TimeoutError as error:
            if not quiet.expired():
                return self._failed(item, error)
            logger.warning(
                "%s: ended, it said nothing for %g s", self._title(item), self._quiet_s_max
            )
            return self._unsure(
                item,
                Failed(
                    error="ToolTimeout" if self.kind == "tool" else "Timeout",
                    detail=f"{ask.name} gave no heartbeat for {self._quiet_s_max:g} s; "
                    "what it did is not undone",
                ),
            )
        except BaseException as error:
            if not _is_its_own(error):
                raise
            return self._failed(item, error)  # whatever users' code raises is the call's answer
        finally:
            going_on = False

    def _failed(self, item: Item, error: BaseException) -> Failed:
        name, words = describe(error)
        logger.info("%s of %s failed: %s: %s", item.ask.name, item.call_id, name, words)
        return self._unsure(item, Failed(error=name, detail=words))

    def _unsure(self, item: Item, failed: Failed) -> Failed:
        """Return how a call ended, unless that leaves open whether something irreversible happened."""
        if item.safety is Safety.IRREVERSIBLE:
            raise _UnsureError(failed)
        return failed

    def _call(self, item: Item) -> Call:
        ask = item.ask
        return Call(
            id=item.call_id,
            safety=item.safety,
            order_key=ask.order_key,
            not_after_ms=ask.not_after_ms,
            reply_to=ask.reply_to,
            meta=item.meta,
        )

    def _attempt(
        self,
        item: Item,
        attempt_id: str,
        number: int,
        states: list[object],
        heard: Callable[[], None],
    ) -> Attempt:
        pieces = 0

        def heartbeat(state: object) -> None:
            states[0] = state
            heard()

        async def progress(text: str) -> None:
            nonlocal pieces
            heard()
            for start in range(0, len(text), TOKEN_CHARS_MAX):
                pieces += 1
                token = Token(
                    run=item.ask.run,
                    number=item.ask.number,
                    attempt=f"{number}.{attempt_id}",
                    seq=pieces,
                    text=text[start : start + TOKEN_CHARS_MAX],
                )
                await self._publish(item, token)

        return Attempt(
            id=attempt_id,
            number=number,
            heartbeat=heartbeat,
            progress=progress,
            last_state=states[0],
        )

    async def _publish(self, item: Item, token: Token) -> None:
        """Append a token; a lost one must not have the call repeated, so it is only said."""
        to = Address(self._tokens, item.ask.run)
        try:
            await self._append(self._envelope.seal(Sent(message=token, to=to, meta=item.meta)))
        except TransientError as error:
            logger.warning("a token of %s is lost: %s", item.call_id, error)


def _is_its_own(error: BaseException) -> bool:
    """Say whether what users' code ended with was its own doing; else this process is told to stop."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or not task.cancelling()
    return not isinstance(error, (GeneratorExit, KeyboardInterrupt))
