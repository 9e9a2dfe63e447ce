"""The broker that the tests use keeps its word about transactions."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Callable

import pytest

from headwater.log.kafka_config import KafkaConfig
from headwater.log.probe import Probe

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("probe")]

ELSEWHERE = pathlib.Path(__file__).parents[3] / "shared" / "probes" / "eos_probe.py"
"""A probe written by others, where the project is checked out beside it."""


def test_the_tests_broker_answers_all_six_questions(kafka: str, say: Callable[[str], None]) -> None:
    """No exactly-once figure counts on a broker that fails one of them."""
    answers = list(Probe(KafkaConfig(bootstrap=kafka), namespace="it").run())
    say(f"{sum(answer.held for answer in answers)}/{len(answers)}")
    assert [answer for answer in answers if not answer.held] == []
    assert len(answers) == 6


def test_the_tests_broker_passes_a_foreign_probe(kafka: str, say: Callable[[str], None]) -> None:
    """Our own questions could share a mistake with our own adapter."""
    if not ELSEWHERE.is_file():
        pytest.skip("there is no foreign probe beside this checkout")
    done = subprocess.run(
        [sys.executable, ELSEWHERE, kafka], capture_output=True, text=True, timeout=200, check=False
    )
    say(f"eos_probe.py {done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr}")
    assert done.stdout.strip().endswith("6/6"), done.stdout + done.stderr
