"""Benchmarks still ask what they say: each runs, small."""

from __future__ import annotations

import pytest
from benchmarks import __main__ as benchmarks
from benchmarks import call, eos_tax, hop, memory

from headwater.log.kafka import KafkaLog
from headwater.log.kafka_config import KafkaConfig


@pytest.mark.parametrize("of", [KafkaLog, eos_tax.PlainLog])
def test_turns_are_taken_with_transactions_and_without(
    kafka: str, monkeypatch: pytest.MonkeyPatch, of: type[KafkaLog]
) -> None:
    """Both sides of `eos-tax` take every turn of the backlog."""
    monkeypatch.setattr(hop, "RUNS", 20)
    monkeypatch.setattr(hop, "WARM", 0.0)
    assert hop.turns(KafkaConfig(bootstrap=kafka), of=of).per_s > 0


def test_memory_and_calls_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each prints its one line."""
    monkeypatch.setattr(memory, "RUNS", 100)
    memory.main()
    call.main(["--round-trips", "100", "--repetitions", "1"])
    out = capsys.readouterr().out
    assert "memory median ratio" in out
    assert "call median ratio" in out


def test_unknown_questions_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """What there is to ask is said."""
    assert benchmarks.main(["nothing"]) == 2
    assert "eos-tax" in capsys.readouterr().err
