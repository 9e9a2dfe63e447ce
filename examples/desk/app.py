"""A bank's customer desk: it acts on what customers write, and asks a person before much money moves."""

from __future__ import annotations

import asyncio
import decimal
from collections.abc import AsyncIterator

from examples.desk import bank, scripts
from examples.desk.types import (
    Answer,
    ApprovalWanted,
    Intent,
    Message,
    Money,
    Score,
    Transfer,
)

import headwater

ASK_FROM = decimal.Decimal(1_000)
"""Euros from which on a person decides."""
DECIDE_S = 24 * 3_600
"""How long a person may take."""
PRICE = headwater.usd_per_million(input_usd=0.25, output_usd=2)
"""What the scripted models pretend to cost, so that the demo shows money."""

app = headwater.App("desk")
reader = app.model("reader", scripts.reader, price=PRICE)
analyst = app.model("analyst", scripts.analyst, price=PRICE)
writer = app.model("writer", scripts.writer, price=PRICE)


@app.lifespan("tools")
async def deps(settings: headwater.Settings) -> AsyncIterator[bank.Bank]:
    """Connect to the bank, once per process of the tools role."""
    yield bank.example()


@app.tool(effect="read")
async def balance(call: headwater.Call[bank.Bank], account: str) -> Money:
    """Look up what is in an account."""
    return call.deps.balance(account)


@app.tool(effect="write", service="cards", order_key="card_id", timeout_s=10)
async def block_card(call: headwater.Call[bank.Bank], card_id: str) -> str:
    """Block a card; calls for one card start in order."""
    return call.deps.block(card_id, call.idempotency_key)


@app.tool(effect="write", service="payments", order_key=lambda args: args["transfer"].account)
def pay(call: headwater.Call[bank.Bank], transfer: Transfer) -> str:
    """Move money; a repeat with the same key moves nothing."""
    return call.deps.transfer(transfer.account, transfer.to, transfer.amount, call.idempotency_key)


@app.agent(budget=headwater.Budget(steps=5, usd=0.05))
async def assess(ctx: headwater.Context, transfer: Transfer) -> Score:
    """Judge a transfer: an agent of its own, which others may call as well."""
    return await analyst(f"Is this fraud? {transfer.amount} to {transfer.to}", output=Score)


@app.agent(budget=headwater.Budget(steps=50, usd=0.25, wall_s=3 * DECIDE_S), emits=[ApprovalWanted])
async def desk(ctx: headwater.Context, message: Message) -> Answer:
    """Serve one message of a customer."""
    funds, intent = await asyncio.gather(
        balance(message.customer),
        reader(f"What does the customer want?\n{message.text}", output=Intent),
    )
    if intent.kind == "lost_card" and intent.card_id is not None:
        reference = await block_card(intent.card_id)
        return Answer(
            text=f"Card {intent.card_id} is blocked.",
            done=[f"blocked {intent.card_id}: {reference}"],
        )
    if intent.kind == "transfer" and intent.to is not None and intent.amount is not None:
        transfer = Transfer(account=message.customer, to=intent.to, amount=intent.amount)
        return await send(ctx, transfer)
    text = await writer(f"Balance: {funds}\nQuestion: {message.text}", stream=True)
    return Answer(text=text)


async def send(ctx: headwater.Context, transfer: Transfer) -> Answer:
    """Send money, with a person's consent where it is much or looks wrong."""
    score = await assess(transfer)
    if transfer.amount >= ASK_FROM or score.risk == "high":
        asked = ApprovalWanted(transfer=transfer, score=score)
        ctx.emit(asked)
        words = f"send {transfer.amount:.2f} euros to {transfer.to}"
        try:
            approval = await ctx.approve(words, asked, to="group:payments", expires_s=DECIDE_S)
        except headwater.Denied as error:
            if error.error == "Expired":
                return Answer(text="Nobody could check your transfer in time; nothing was sent.")
            return Answer(text="Your transfer was declined.", done=[str(error)])
        ctx.log.info("approved by %s: %s", approval.by, approval.reason)
    try:
        reference = await pay(transfer)
    except headwater.ToolError as error:
        return Answer(text=f"Nothing was sent: {error}")
    return Answer(
        text=f"{transfer.amount:.2f} euros are on their way to {transfer.to}.",
        done=[f"paid: {reference}"],
    )
