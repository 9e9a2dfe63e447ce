"""JSON values that travel as text inside Avro, under the same bound on depth as Avro itself."""

from __future__ import annotations

import json
from typing import Any

from headwater.contracts.limits import DEPTH_MAX


class JsonText(str):
    """A JSON value as text, told from other text where keys are put in order."""

    __slots__ = ()


def dump(value: Any) -> str:
    """Return a value as JSON.

    Raises:
        ValueError: It nests too deep, or in itself.
        TypeError: It is no JSON.
    """
    try:
        text = json.dumps(value)
    except RecursionError:
        text = ""
    if not text or _too_deep(value, text):
        raise ValueError(f"JSON nests over {DEPTH_MAX} levels")
    return JsonText(text)


def load(text: str) -> Any:
    """Return JSON's value.

    Raises:
        ValueError: It is no JSON, or nests too deep.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"JSON nests over {DEPTH_MAX} levels") from error
    if _too_deep(value, text):
        raise ValueError(f"JSON nests over {DEPTH_MAX} levels")
    return value


def _too_deep(value: Any, text: str) -> bool:
    """Say whether JSON nests too deep; Python's own bound depends on how deep its caller is."""
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return False
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [
            inner
            for of in level
            if isinstance(of, (dict, list, tuple))
            for inner in (of.values() if isinstance(of, dict) else of)
        ]
    return any(isinstance(of, (dict, list, tuple)) for of in level)


def ordered(datum: Any) -> Any:
    """Return a datum with the keys of its maps and JSON in order."""
    if isinstance(datum, dict):
        return {key: ordered(datum[key]) for key in sorted(datum)}
    if isinstance(datum, list):
        return [ordered(item) for item in datum]
    if isinstance(datum, tuple):  # a member of a union: the record's name, and the record
        return datum[0], ordered(datum[1])
    if isinstance(datum, JsonText):
        return json.dumps(json.loads(datum), sort_keys=True)
    return datum
