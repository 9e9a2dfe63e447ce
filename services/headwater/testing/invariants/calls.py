"""Calls: what the world outside saw of them, against what was noted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from headwater.contracts.messages import Ask, InDoubt, Intent, Result
from headwater.testing.invariants import decisions
from headwater.testing.invariants.book import Act, Book, Read


def a_deposed_owner_pays_nothing(book: Book) -> Iterator[str]:
    """A deposed owner commits and pays nothing: who acts has noted it, and nobody has taken over since."""
    for act in book.acts:
        ask = _ask(book, act)
        if act.late or act.attempt > 1 or ask is None or not _careful(ask):
            continue
        before = [
            read
            for read in book.intents.get(act.key, ())
            if read.record.time_ms <= _began_ms(act) + book.slack_ms
        ]
        if not before:
            yield f"{act.name} of {act.key} was made by {act.holder} before that was noted"
            continue
        intent = _standing(before)
        if act.holder and intent.holder != act.holder:
            yield f"{act.name} of {act.key} was made by {act.holder}; {intent.holder} had taken it over"


def no_call_is_repeated_without_need(book: Book) -> Iterator[str]:
    """At most one repeat of a call per crash, only where no RESULT was durable; none if irreversible.

    A person's word that an irreversible call did not happen has it made once more.
    """
    words = decisions.said(book)
    yield from decisions.nothing_is_made_that_nobody_approved(book)
    acts: dict[str, list[Act]] = defaultdict(list)
    for act in sorted(book.acts, key=lambda act: act.at_ms):
        if not act.late and (act.attempt == 1 or act.safety == "irreversible"):
            acts[act.key].append(act)
    for key, made in acts.items():
        first = made[0]
        if first.safety == "irreversible":
            if len(made) > decisions.sendings(words.get(key, [])):
                yield f"{first.name} of {key} cannot be taken back, and was made {len(made)} times"
            yield from _bought_again(book, key, made)
            continue
        ask = _ask(book, first)
        began = first.at_ms if ask is None else ask.record.time_ms
        began, ended = began - book.slack_ms, made[-1].at_ms + book.slack_ms
        deaths = sum(began <= death.at_ms <= ended for death in book.deaths)
        if len(made) - 1 > deaths:
            yield (
                f"{first.name} of {key} was made {len(made)} times around {deaths} deaths, "
                f"from {began} to {ended} ms"
            )
        yield from _bought_again(book, key, made)
    yield from _starts_in_order(book)


def _bought_again(book: Book, key: str, made: list[Act]) -> Iterator[str]:
    # An answer that was sent had to be noted before, so it counts as noted whatever the receipts say.
    answers = (*book.results.get(key, ()), *book.replies.get(key, ()))
    known = [read.record.time_ms for read in answers if _is_answer(read)]
    if not known or made[0].safety == "read":
        return
    noted_ms = min(known)
    again = [
        act
        for act in made
        if _began_ms(act) > noted_ms + book.slack_ms and not _unseen(book, act, noted_ms)
    ]
    if again:
        yield f"{again[0].name} of {key} was made {len(again)} times after its answer was noted"


def _unseen(book: Book, act: Act, noted_ms: int) -> bool:
    """Whether an answer was noted so shortly before that whoever made the call again could not know it.

    Who notes beforehand has read what was noted up to its own note, so that note came before the answer.
    """
    ask = _ask(book, act)
    return _began_ms(act) <= noted_ms + book.blind_ms and (
        (ask is not None and not _careful(ask))
        or any(
            read.message.holder == act.holder and read.record.time_ms <= noted_ms
            for read in book.intents.get(act.key, ())
        )
    )


def _began_ms(act: Act) -> int:
    return act.at_ms if act.began_ms is None else act.began_ms


def _is_answer(read: Read) -> bool:
    """Whether a receipt or a reply is an answer; that nobody knows is none."""
    reply = read.message.reply if isinstance(read.message, Result) else read.message
    return not isinstance(reply.outcome, InDoubt)


def _starts_in_order(book: Book) -> Iterator[str]:
    """Calls with one order key start in the order of their requests.

    A repeat that began in time may act late: its first attempt was answered, and the next call began.
    """
    newest: dict[tuple[str, str, str], tuple[int, str]] = {}
    for act in sorted(book.acts, key=_began_ms):
        ask = _ask(book, act)
        if ask is None or act.late or act.attempt > 1 or not ask.message.order_key:
            continue
        if act.safety == "read":
            continue
        lane = ask.header("ce_tenantid"), ask.message.name, ask.message.order_key
        offset, key = newest.get(lane, (-1, ""))
        if ask.record.offset < offset:
            yield f"{act.name} of {act.key} was made after that of {key}, which was asked later"
        newest[lane] = max((offset, key), (ask.record.offset, act.key))


def _ask(book: Book, act: Act) -> Read | None:
    return next(
        (read for read in book.asks.get(act.key, ()) if isinstance(read.message, Ask)), None
    )


def _careful(ask: Read) -> bool:
    message: Ask = ask.message
    ordered = message.safety == "write" and bool(message.order_key)
    return ordered or message.safety == "irreversible"


def _standing(reads: list[Read]) -> Intent:
    """Return the intent that counts: the first of the newest attempt, and its renewals."""
    standing: Intent = reads[0].message
    for read in reads:
        intent: Intent = read.message
        if intent.attempt == standing.attempt or intent.begun_ms >= standing.begun_ms:
            standing = intent
    return standing
