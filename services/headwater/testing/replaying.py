"""Recorded runs against today's code, in users' tests."""

from __future__ import annotations

import os
import pathlib

from headwater import histories
from headwater.errors import HeadwaterError
from headwater.sdk.app import App


class ReplayError(HeadwaterError, AssertionError):
    """Today's code would not go on with a run like the one that was recorded."""


def replay(app: App, history: str | os.PathLike[str], *, strict: bool = False) -> None:
    """Replay a recorded run against today's code; no call is made.

    Args:
        app: The app as it is now.
        history: A file that `headwater runs export` wrote.
        strict: Whether a call that only reads may not have other arguments either.

    Raises:
        ReplayError: The code asks for something else than the run did, or ends otherwise.
        HistoryError: The file is no history.
    """
    path = pathlib.Path(history)
    try:
        with path.open(encoding="utf-8") as lines:
            recorded = histories.load(lines)
    except histories.HistoryError as error:
        raise histories.HistoryError(f"{path}: {error}") from error
    verdict = histories.verify(app, recorded, whole=True, strict=strict)
    if verdict.state == "equal":
        return
    raise ReplayError(
        f"{path}: {verdict.says}. Runs like this one may be open: keep their way with "
        'ctx.patched("...") and put the new one beside it, or let them end first; if none is open, '
        "record the history again"
    )
