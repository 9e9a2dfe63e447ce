"""Histories as models need them: chains of parts, put together again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from headwater.core.blobs import Blobs, is_name
from headwater.errors import PoisonError, TransientError

PARTS_MAX = 100_000
"""More parts than any conversation has; a chain of more is no chain of ours."""


async def messages(blobs: Blobs | None, tenant: str, name: str) -> list[dict[str, Any]]:
    """Return the messages of a chain, from its first part to `name`; each part is fetched once a process.

    Args:
        blobs: Where parts are.
        tenant: Whose.
        name: The last part; empty for none.

    Raises:
        TransientError: The store of blobs is away, or this process has none.
        BlobLostError: A part is gone.
        PoisonError: A part is none.
    """
    if not name:
        return []
    if blobs is None:
        raise TransientError(
            "a conversation's history is in a store of blobs, and this process has none: set "
            "HEADWATER_BLOBS__URL to the one of the other processes"
        )
    parts: list[list[dict[str, Any]]] = []
    while name:
        if not is_name(name) or len(parts) == PARTS_MAX:
            raise PoisonError("invalid-request", f"{name[:100]!r} is no part of a conversation")
        try:
            value: bytes = await asyncio.wrap_future(blobs.get(tenant, name))
            part = json.loads(value)
            parts.append(part["messages"])
            name = part["before"]
        except (ValueError, KeyError, TypeError) as error:
            raise PoisonError("invalid-request", f"{name} is no part of a conversation") from error
    return [message for part in reversed(parts) for message in part]
