"""What the desk's agents and tools exchange; the type hints become Avro schemas."""

from __future__ import annotations

import decimal
from typing import Annotated, Literal

import pydantic

import headwater

Money = Annotated[decimal.Decimal, headwater.Scale(18, 2)]
"""Euros, exact to the cent."""


class Message(pydantic.BaseModel):
    """What a customer wrote."""

    customer: str
    text: str


class Transfer(pydantic.BaseModel):
    """Money that a customer wants to send."""

    account: str
    to: str
    amount: Money


class Intent(pydantic.BaseModel):
    """What a customer wants, as the model understood it."""

    kind: Literal["lost_card", "transfer", "question"]
    card_id: str | None = None
    to: str | None = None
    amount: Money | None = None


class Score(pydantic.BaseModel):
    """How much a transfer looks like fraud."""

    risk: Literal["low", "high"]
    reason: str


class ApprovalWanted(pydantic.BaseModel):
    """Tells the bank's people that a transfer waits for one of them."""

    transfer: Transfer
    score: Score


class Answer(pydantic.BaseModel):
    """What the customer is told, and what was done."""

    text: str
    done: list[str] = []
