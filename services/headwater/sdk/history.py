"""Histories: conversations kept as chains of parts, so that each call sends only what is new.

A conversation that goes on is mostly what was said before. Once the new part is large enough, what
came before the last message becomes a part of its own in the store of blobs, which names the part
before it; calls from then on name the last part and carry the messages after it. Every message is
thus stored once, and sent inline only while it is new.
"""

from __future__ import annotations

import contextvars
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.core.blobs import ref_of

CUT_BYTES = 16 * 1024
"""A part is cut once so much is new: calls stay about as small, and chains short."""
PART_BYTES_MAX = 4 * 1024 * 1024
"""Largest part; a conversation with a larger message is sent as it is."""
_FRAME_BYTES = 256

HISTORY: contextvars.ContextVar[History | None] = contextvars.ContextVar(
    "headwater_history", default=None
)
"""The histories of the run whose function this is; `None` where there is no store of blobs."""

Message = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A conversation as a call sends it.

    Args:
        history: Name of the part that ends before `messages`; empty for none.
        messages: What comes after it.
        nodes: Parts that are new: they must be in the store before the call is sent.
    """

    history: str = ""
    messages: Sequence[Message]
    nodes: tuple[bytes, ...] = ()


class History:
    """What one run has cut off its conversations so far; the same in a replay."""

    def __init__(self) -> None:
        self._ends: dict[bytes, str] = {}

    def cut(self, messages: Sequence[Message]) -> Cut:
        """Return a conversation by the longest part that is known, and cut a new one if it is time."""
        texts = [
            json.dumps(one, separators=(",", ":"), ensure_ascii=False).encode() for one in messages
        ]
        marks = _marks(texts)
        start = next((n for n in range(len(marks) - 1, 0, -1) if marks[n] in self._ends), 0)
        history = self._ends[marks[start]] if start else ""
        new = texts[start:-1]
        if sum(map(len, texts[start:])) <= CUT_BYTES or not new or max(map(len, new)) > _MOST:
            return Cut(history=history, messages=messages[start:])
        nodes = []
        for part in _parts(texts, start):
            start += len(part)
            node = b'{"before":"%b","messages":[%b]}' % (history.encode(), b",".join(part))
            history = self._ends[marks[start]] = ref_of(node).name
            nodes.append(node)
        return Cut(history=history, messages=messages[-1:], nodes=tuple(nodes))


_MOST = PART_BYTES_MAX - _FRAME_BYTES


def _marks(texts: Sequence[bytes]) -> list[bytes]:
    """Return a digest of each beginning of a conversation, the empty one first."""
    mark = b""
    marks = [mark]
    for text in texts:
        mark = hashlib.blake2b(mark + text, digest_size=16).digest()
        marks.append(mark)
    return marks


def _parts(texts: Sequence[bytes], start: int) -> list[list[bytes]]:
    """Return the messages from `start` to the last but one, as parts that are small enough."""
    parts: list[list[bytes]] = [[]]
    size = 0
    for text in texts[start:-1]:
        if size + len(text) + 1 > _MOST and parts[-1]:
            parts.append([])
            size = 0
        parts[-1].append(text)
        size += len(text) + 1
    return parts
