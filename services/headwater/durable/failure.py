"""How an exception that nobody caught is told to people: its name, its words, where it happened."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

DETAIL_MAX = 2_000
STACK_BYTES_MAX = 4_096
_CHAIN_MAX = 8
_FRAMES_MAX = 30

_SECRETS = re.compile(
    r"""(?ix)
    (?P<name> (?:api[_-]?key | access[_-]?key | secret | token | password | passwd | authorization)
              ["']? \s* [=:] \s* ["']? (?: (?:bearer|basic)\s+ )? )
    (?P<value> [^\s"',;)}\]]+ )
    | (?P<scheme> (?:bearer|basic)\s+ ) [\w.~+/=-]{8,}
    | \b(?:sk|pk|ghp|gho|xox[abp])[-_][\w-]{8,}
    | (?P<user> ://[^\s:/@]+: ) [^\s:/@]+ (?=@)
    """
)


def redact(text: str) -> str:
    """Return text with what looks like a secret replaced by `***`, and halves of surrogate pairs escaped.

    Words quote what they are about, such as the name of a file that is no UTF-8, and are to travel.

    >>> redact("401 for api_key=sk-123456789")
    '401 for api_key=***'
    """
    return _SECRETS.sub(_hide, text).encode("utf-8", "backslashreplace").decode()


class ToldError(Exception):
    """An exception of another process, as that process described it.

    Args:
        name: Its qualified class name.
        words: Its words.
    """

    def __init__(self, name: str, words: str) -> None:
        super().__init__(words)
        self.name = name


def describe(error: BaseException) -> tuple[str, str]:
    """Return an exception's qualified class name and its words, redacted and bounded."""
    if isinstance(error, ToldError):
        return error.name, redact(str(error))[:DETAIL_MAX]
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    try:
        words = str(error)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may do anything
        words = f"<its __str__ raised {type(broken).__name__}>"
    return name, redact(words)[:DETAIL_MAX]


def stack(error: BaseException) -> str:
    """Return where an exception and its causes were raised: no source, no variables, no machine's paths.

    Returns:
        At most 4 KiB of UTF-8; the newest part if there is more.
    """
    lines = [line for part in _chain(error) for line in _trace(part)]
    text = "\n".join(lines).encode("utf-8", "replace")
    return text[-STACK_BYTES_MAX:].decode("utf-8", "ignore")


def _chain(error: BaseException) -> list[BaseException]:
    """Return causes before what they caused, and a group's members before the group."""
    found: list[BaseException] = []
    open_ = [error]
    while open_ and len(found) < _CHAIN_MAX:
        this = open_.pop(0)
        if any(this is seen for seen in found):
            continue
        found.append(this)
        if isinstance(this, BaseExceptionGroup):
            open_.extend(this.exceptions)
        before = this.__cause__ or (None if this.__suppress_context__ else this.__context__)
        if before is not None:
            open_.append(before)
    return found[::-1]


def _trace(error: BaseException) -> Iterator[str]:
    name, words = describe(error)
    for frame, line in list(traceback.walk_tb(error.__traceback__))[-_FRAMES_MAX:]:
        yield f"  {_place(frame.f_code.co_filename)}:{line} in {frame.f_code.co_qualname}"
    yield f"{name}: {words}" if words else name


def _place(file: str) -> str:
    """Return a file's path from the directory it is imported from."""
    roots = [root for root in sys.path if root and Path(file).is_relative_to(root)]
    return str(Path(file).relative_to(max(roots, key=len))) if roots else Path(file).name


def _hide(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return (groups["name"] or groups["scheme"] or groups["user"] or "") + "***"
