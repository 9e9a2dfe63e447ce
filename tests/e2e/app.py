"""The app of the end-to-end test: two tools in parallel, a model, a child agent, a sleep."""

from __future__ import annotations

import asyncio
import hashlib

import pydantic

import headwater
from headwater.models.scripted import Scripted

app = headwater.App("e2e", namespace="e2e")


class Question(pydantic.BaseModel):
    """A customer's question."""

    text: str


class Answer(pydantic.BaseModel):
    """What is made of it; a function of the question alone, so that runs can be compared."""

    text: str
    words: int
    digest: str
    topic: str
    score: int


def _model(prompt: str) -> str:
    return f"topic-{hashlib.blake2b(prompt.encode(), digest_size=4).hexdigest()}"


small = app.model(
    "small", Scripted(_model), price=headwater.usd_per_million(input_usd=1, output_usd=2)
)


@app.tool(effect="read", service="text")
async def count_words(text: str) -> int:
    """Count words."""
    await asyncio.sleep(0.02)
    return len(text.split())


@app.tool(effect="write", service="text", order_key="text")
async def fingerprint(text: str) -> str:
    """Return a digest of the text."""
    await asyncio.sleep(0.02)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@app.agent
async def scorer(ctx: headwater.Context, text: str) -> int:
    """Score a text, through a tool of its own."""
    return 10 * await count_words(text)


@app.agent
async def desk(ctx: headwater.Context, question: Question) -> Answer:
    """Answer one question."""
    words, digest = await asyncio.gather(count_words(question.text), fingerprint(question.text))
    await asyncio.sleep(0.5)
    topic, score = await asyncio.gather(small(question.text), scorer(question.text))
    return Answer(text=question.text, words=words, digest=digest, topic=topic, score=score)
