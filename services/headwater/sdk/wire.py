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
        history: Name of the blob with the part of the conversation before them; empty for none.
        settings: pydantic-ai model settings; `max_tokens` is always there.
        output: JSON schema of the answer; `None` for text.
        stream: Whether pieces of the answer go to the token topic as they come.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    messages: list[dict[str, Any]]
    history: str = ""
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


def retry(error: str, response: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a message that says why an answer could not be used.

    Args:
        error: What is wrong with it.
        response: The answer. Providers want every tool call answered before anything else is said,
            so an answer by the output tool is sent back as that call's return.
    """
    text = f"That answer does not fit what was asked for: {error}. Answer again, in the right form."
    calls = _calls(response or {})
    if not calls:
        return prompt(text)
    parts = [{"part_kind": "retry-prompt", "content": text, **call} for call in calls]
    return {"kind": "request", "parts": parts}


def closed(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a response as the end of a conversation that may go on: its tool calls answered."""
    calls = _calls(response)
    if not calls:
        return [dict(response)]
    parts = [{"part_kind": "tool-return", "content": "Taken.", **call} for call in calls]
    return [dict(response), {"kind": "request", "parts": parts}]


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
    """Return 16 bytes over what is asked in whole, whenever its messages were made."""
    plain = ask.model_dump(mode="json", exclude={"history"})
    plain["messages"] = [_timeless(message) for message in plain["messages"]]
    data = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(data, digest_size=16).digest()


def _calls(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"tool_name": part.get("tool_name"), "tool_call_id": part.get("tool_call_id")}
        for part in response.get("parts", ())
        if part.get("part_kind") == "tool-call"
    ]


def _timeless(message: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out when a message and its parts were made; a timestamp in what they say stays."""
    parts = message.get("parts", ())
    if isinstance(parts, Sequence) and not isinstance(parts, str):
        parts = [_without_time(part) if isinstance(part, Mapping) else part for part in parts]
    return {**_without_time(message), "parts": parts}


def _without_time(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != "timestamp"}
