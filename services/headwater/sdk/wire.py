"""The wire between a run and the models effector: one request a call, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

MAX_TOKENS = 4_096
"""Sent with every model call that does not say otherwise, so that a ceiling exists."""
OUTPUT_TOOL = "final_result"
"""Name of the tool whose arguments are a structured answer."""


class ModelAsk(pydantic.BaseModel):
    """What a model is asked.

    Args:
        messages: pydantic-ai messages, as their type adapter writes them to JSON.
        settings: pydantic-ai model settings; `max_tokens` is always there.
        output: JSON schema of the answer; `None` for text.
        stream: Whether pieces of the answer go to the token topic as they come.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    messages: list[dict[str, Any]]
    settings: dict[str, Any]
    output: dict[str, Any] | None = None
    stream: bool = False


class ModelAnswer(pydantic.BaseModel):
    """What a model answered.

    Args:
        response: A pydantic-ai `ModelResponse`, as its type adapter writes it to JSON.
        model: Name the provider gave.
        input_tokens: Tokens read.
        output_tokens: Tokens written.
        usd_nano: Price in billionths of a dollar; 0 if unknown.
    """

    response: dict[str, Any]
    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    usd_nano: int = 0


def prompt(text: str) -> dict[str, Any]:
    """Return a user's prompt as a message."""
    return {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": text}]}


def retry(error: str) -> dict[str, Any]:
    """Return a message that says why an answer could not be used."""
    text = f"That answer does not fit what was asked for: {error}. Answer again, in the right form."
    return prompt(text)


def text_of(response: Mapping[str, Any]) -> str:
    """Return the text of a response's parts."""
    return "".join(
        str(part.get("content", ""))
        for part in response.get("parts", ())
        if part.get("part_kind") == "text"
    )


def structured_of(response: Mapping[str, Any]) -> str:
    """Return the JSON of a structured answer: the output tool's arguments, else the text."""
    for part in response.get("parts", ()):
        if part.get("part_kind") == "tool-call" and part.get("tool_name") == OUTPUT_TOOL:
            args = part.get("args")
            return args if isinstance(args, str) else json.dumps(args)
    return text_of(response)


def digest(ask: ModelAsk) -> bytes:
    """Return 16 bytes over what is asked, whenever its messages were made."""
    plain = _timeless(ask.model_dump(mode="json"))
    data = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(data, digest_size=16).digest()


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _timeless(v) for k, v in value.items() if k != "timestamp"}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_timeless(item) for item in value]
    return value
