"""Lifespans: set up once, taken down once, and named where they fail."""

from __future__ import annotations

import asyncio

import pytest

from headwater.errors import SettingsError
from headwater.tools.lifespans import entered


def use(lifespan, body=lambda deps: None):
    async def scene():
        async with entered(lifespan, "settings") as deps:
            return body(deps)

    return asyncio.run(scene())


def test_what_it_yields_is_there_and_taken_down_after():
    """Set up before the body, taken down after it."""
    steps = []

    async def deps(settings):
        steps.append(settings)
        yield "deps"
        steps.append("down")

    use(deps, steps.append)
    assert steps == ["settings", "deps", "down"]


def test_without_one_there_are_no_deps():
    """A role may have none."""
    assert use(None, lambda deps: deps is None)


def test_it_sees_what_the_body_died_of():
    """A lifespan can tell an end from an accident, and is taken down in both."""
    seen = []

    async def deps(settings):
        try:
            yield
        except ValueError as error:
            seen.append(error)
            raise
        finally:
            seen.append("down")

    def body(deps):
        raise ValueError("an accident")

    with pytest.raises(ValueError, match="an accident"):
        use(deps, body)
    assert [str(item) for item in seen] == ["an accident", "down"]


async def failing(settings):
    raise ConnectionError("password=hunter22 refused")
    yield


async def never(settings):
    return
    yield


async def no_generator(settings):
    return 1


def plain(settings):
    return 1


@pytest.mark.parametrize("lifespan", [failing, never, no_generator, plain])
def test_one_that_fails_stops_the_start(lifespan):
    """The message names the lifespan, and hides secrets."""
    with pytest.raises(SettingsError, match=f"lifespan {lifespan.__name__} failed") as caught:
        use(lifespan)
    assert "hunter22" not in str(caught.value)


def test_one_that_yields_twice_is_refused():
    """It yields once."""

    async def twice(settings):
        yield 1
        yield 2

    with pytest.raises(RuntimeError, match="didn't stop"):
        use(twice)
