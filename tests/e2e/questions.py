"""The questions: the BANKING77 test set where it is, else a small set of the project's own."""

from __future__ import annotations

import csv
import pathlib

HERE = pathlib.Path(__file__).parent
SHARED = HERE.parents[2] / "shared" / "data" / "banking77" / "test.csv"


def load() -> list[str]:
    """Return questions, as their customers wrote them."""
    path = SHARED if SHARED.exists() else HERE / "questions.csv"
    with path.open(newline="", encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file)]
