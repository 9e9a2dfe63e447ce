"""What stands in for models, so that the desk runs offline and without keys.

With a provider's key in the environment, `app.model("reader", "openai:gpt-5-mini")` asks a real one;
nothing else in the app changes.
"""

from __future__ import annotations

import re
from typing import Any

from headwater.models.scripted import Scripted

_CARD = re.compile(r"\bcard (\d{4})\b")
_TRANSFER = re.compile(
    r"\b(?:send|transfer|pay) (\d+(?:\.\d{2})?)(?: euros?)? to (\w+)", re.IGNORECASE
)


def read(prompt: str) -> dict[str, Any]:
    """Say what a customer wants."""
    if transfer := _TRANSFER.search(prompt):
        return {"kind": "transfer", "amount": transfer[1], "to": transfer[2].lower()}
    card = _CARD.search(prompt)
    if card and re.search(r"lost|stolen|gone", prompt, re.IGNORECASE):
        return {"kind": "lost_card", "card_id": card[1]}
    return {"kind": "question"}


def judge(prompt: str) -> dict[str, str]:
    """Say how much a transfer looks like fraud."""
    if "mule" in prompt:
        return {"risk": "high", "reason": "the receiver was reported before"}
    return {"risk": "low", "reason": "nothing unusual"}


def write(prompt: str) -> str:
    """Answer a question from the facts in the prompt."""
    balance = re.search(r"Balance: ([\d.]+)", prompt)
    return f"You have {balance[1]} euros." if balance else "Could you say that in other words?"


reader, analyst, writer = Scripted(read), Scripted(judge), Scripted(write)
