"""What an operator is told of an exception: enough to act on, nothing secret, never too much."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest

from headwater.durable import failure


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("api_key=abc123 and more", "api_key=*** and more"),
        ("{'Authorization': 'Bearer abc.def-ghi'}", "{'Authorization': 'Bearer ***'}"),
        ("Bearer abcdefgh123 was refused", "Bearer *** was refused"),
        ("password: hunter2, retry", "password: ***, retry"),
        ("key sk-proj-0123456789abcdef is wrong", "key *** is wrong"),
        ("postgres://user:pass@host/db is away", "postgres://user:***@host/db is away"),
        ("account 42 has 3 tokens left", "account 42 has 3 tokens left"),
    ],
)
def test_secrets_are_hidden_and_words_kept(text: str, told: str) -> None:
    """What looks like a secret goes, what an operator needs stays."""
    assert failure.redact(text) == told


def test_examples_hold() -> None:
    """Documentation examples are executed."""
    assert doctest.testmod(failure).failed == 0


class Broken(Exception):  # noqa: N818 - any name will do
    """Cannot even say what is wrong."""

    def __str__(self) -> str:
        raise ValueError


def test_description_is_qualified_and_bounded() -> None:
    """A class is named with its module, unless it is built in; words have an end."""
    name, words = failure.describe(Broken())
    assert name.endswith("test_failure.Broken")
    assert words == "<its __str__ raised ValueError>"
    assert failure.describe(KeyError("x")) == ("KeyError", "'x'")
    assert len(failure.describe(ValueError("x" * 10_000))[1]) == failure.DETAIL_MAX


def fail(depth: int) -> None:
    if depth:
        fail(depth - 1)
    else:
        raise ValueError(f"password={depth}")


def caught(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError


def test_stack_tells_causes_and_members_first() -> None:
    """The first line that matters is often not the last exception's."""

    def act() -> None:
        try:
            fail(1)
        except ValueError as error:
            raise ExceptionGroup("two", [LookupError("one"), error]) from error

    told = failure.stack(caught(act))
    assert told.index("ValueError: password=***") < told.index("ExceptionGroup: two")
    assert told.index("LookupError: one") < told.index("ExceptionGroup: two")
    assert told.count("password") == 1
    assert "tests/unit/durable/test_failure.py:" in told
    assert "fail" in told


def test_stack_leaves_out_what_was_suppressed() -> None:
    """`raise … from None` is its author's word that the context does not matter."""

    def act() -> None:
        try:
            fail(0)
        except ValueError:
            raise LookupError from None

    told = failure.stack(caught(act))
    assert "ValueError" not in told
    assert told.endswith("LookupError")


def test_stack_has_an_end() -> None:
    """Endless chains and deep recursions are cut; the newest part is kept."""
    error: BaseException = ValueError("newest")
    last = error
    for number in range(50):
        last.__context__ = ValueError(f"{number}")
        last = last.__context__
    last.__context__ = error
    told = failure.stack(error)
    assert told.endswith("ValueError: newest")
    assert "ValueError: 40" not in told
    long = failure.stack(caught(lambda: fail(900)))
    assert len(long.encode()) <= failure.STACK_BYTES_MAX
    huge = failure.stack(ExceptionGroup("é" * 2000, [ValueError("é" * 2000)] * 5))
    assert len(huge.encode()) <= failure.STACK_BYTES_MAX


def test_paths_outside_the_import_path_are_cut_to_names() -> None:
    """A machine's directories are nobody's business."""
    code = compile("raise ValueError", "/somewhere/private/agent.py", "exec")
    told = failure.stack(caught(lambda: exec(code)))  # noqa: S102 - a file that is nowhere
    assert "  agent.py:1 in <module>" in told
    assert "private" not in told


def test_what_another_process_told_keeps_its_name() -> None:
    """An error that came over a line reads as it did where it was raised."""
    told = failure.ToldError("bank.Refused", "no: api_key=abc123")
    assert failure.describe(told) == ("bank.Refused", "no: api_key=***")
