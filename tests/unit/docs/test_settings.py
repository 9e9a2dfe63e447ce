"""The page of settings has each of them, with the default it has."""

from __future__ import annotations

import pathlib
import re

from headwater.settings import Settings

PAGE = pathlib.Path(__file__).parents[3] / "docs/settings.md"


def test_every_setting_is_on_the_page_with_its_default() -> None:
    """Nobody has to read code to find out what can be set; the host's name is each machine's own."""
    told = re.findall(
        r"^\| `(HEADWATER_\w+)` \| (?:`([^`]*)`)? ?\| \S", PAGE.read_text(), re.MULTILINE
    )
    settings = Settings.of({"HEADWATER_INSTANCE": "host"}).describe()
    assert told == [(name, "" if value in {"{}", "host"} else value) for name, value, _ in settings]
