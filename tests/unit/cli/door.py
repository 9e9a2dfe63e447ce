"""What a gateway of the tests' own was asked and answers, and what a command line led to."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclasses.dataclass
class Answer:
    """What a path answers."""

    body: Any
    status: int = 200
    type: str = "application/json"


class Door:
    """A gateway that answers what a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.url = ""

    def on(self, method: str, path: str, *bodies: Any, status: int = 200) -> None:
        """Answer a path with these, one after the other; the last stays."""
        self.answers[method, path] = [
            body if isinstance(body, Answer) else Answer(body, status) for body in bodies
        ]

    def problem(self, method: str, path: str, status: int, title: str, detail: str = "") -> None:
        """Answer a path with a problem document."""
        body = {"title": title, "detail": detail, "status": status}
        self.on(method, path, Answer(body, status, "application/problem+json"))

    def answer(self, asked: Asked) -> Answer:
        """Return what to say."""
        self.asked.append(asked)
        left = self.answers.get((asked.method, asked.path))
        if left is None:
            return Answer({"title": "not found", "detail": f"no {asked.path}"}, 404)
        return left[0] if len(left) == 1 else left.pop(0)


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command line led to."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Stdout as one JSON document."""
        return json.loads(self.out)


Hw = Callable[..., Ran]
