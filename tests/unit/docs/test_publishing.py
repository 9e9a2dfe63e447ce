"""What the page on publishing shows is what a producer in any language has to write."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import confluent_kafka
import pytest
from examples.desk.app import app, desk
from examples.desk.types import Message

from headwater.cli.schemas import text_of
from headwater.contracts import headers

PAGE = pathlib.Path(__file__).parents[3] / "docs/how-to/publish-from-any-language.md"


class Producer:
    """Keeps what would be sent."""

    sent: list[tuple[tuple[Any, ...], dict[str, Any]]] = []  # noqa: RUF012 - of one test

    def __init__(self, config: dict[str, Any]) -> None:
        """Take any cluster."""

    def produce(self, *args: Any, **more: Any) -> None:
        self.sent.append((args, more))

    def flush(self) -> None:
        """Nothing waits."""


def test_the_program_on_the_page_publishes_a_task_that_intake_takes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are the agent's input, its headers those that are taken over."""
    program = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    file = tmp_path / "schemas/message/v1.avsc"
    file.parent.mkdir(parents=True)
    file.write_text(text_of(desk.input.schema))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(confluent_kafka, "Producer", Producer)
    exec(compile(program, str(PAGE), "exec"), {})  # noqa: S102 - what the page says is run
    ((topic,), record) = Producer.sent[0]
    assert topic == f"hw.cmd.{desk.name}.v1"
    assert desk.input.decode(record["value"], app.schemas) == Message(
        customer="42", text="how much have I got?"
    )
    given = tuple((name, value.encode()) for name, value in record["headers"].items())
    headers.sizes(record["key"].encode(), given)
    assert headers.valid_tenant(record["headers"]["ce_tenantid"])
