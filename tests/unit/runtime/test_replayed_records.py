"""A dead letter that is replayed: how often it was is told of it, and of nothing that it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from sage.model.dead_letter_headers import REPLAYS
from sage.operations.replay_choice import Choice, ReplayReport, Sorter
from sage.runtime.steps.codec import BYTES_MARK
from tests.unit.runtime.acting import turn
from tests.unit.runtime.bench import Bench, text


def replay(bench: Bench) -> None:
    """Put the newest dead letter into its retry topic, as ``sage dlq replay`` does."""
    sorter = Sorter(bench.clients.admin(), "t", Choice(), ReplayReport("t", dry_run=False))
    record = sorter.sort(bench.dead()[-1])
    assert record is not None
    producer = bench.clients.producer()
    producer.produce(record.topic, record.value, record.key, record.headers, record.timestamp, record.partition)
    producer.flush(0)


class Patient:
    """A step that fails so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.seen: list[Any] = []

    def sync(self, value: Any) -> Any:
        self.seen.append(value)
        self.failures -= 1
        if self.failures >= 0:
            raise ValueError("not yet")
        return value

    async def later(self, value: Any) -> Any:
        return self.sync(value)


@pytest.mark.parametrize("value", [b"1", b"\xff plain"])
@pytest.mark.parametrize("kind", ["sync", "later"])
def test_what_a_replayed_record_becomes_has_no_word_of_the_replay(kind: str, value: bytes) -> None:
    patient = Patient(2)
    bench = Bench(lambda s: s.map(lambda v: v, name="first").key_by(lambda v: b"k", name="keyed").map(
        getattr(patient, kind), name="work"), stage="work")  # fmt: skip
    actor = bench.actor()
    source = bench.setting.stage.inputs[0].topic
    producer = bench.clients.producer()
    marked = [] if value == b"1" else [BYTES_MARK]
    producer.produce(source, value, b"k", [("mine", b"x"), ("sage.id", b"a"), *marked], None, 0)
    producer.flush(0)
    for replays in (None, "1"):
        turn(bench, actor, seconds=0.1, times=12)
        letter = text(bench.dead()[-1])
        assert letter.get(REPLAYS) == replays
        replay(bench)
    turn(bench, actor, seconds=0.1, times=12)
    (output,) = bench.produced()
    assert output.value() == value
    assert set(text(output)) == {"mine", "sage.id", *dict(marked)}
    assert patient.seen == [1 if value == b"1" else value] * 3


def test_an_error_branch_gets_no_word_of_the_replay() -> None:
    bench = Bench(lambda s: s.map(Patient(5).sync, name="work", retry={"attempts": 1}).branch("error").map(
        lambda v: v, name="mend"), stage="work")  # fmt: skip
    actor = bench.actor()
    producer = bench.clients.producer()
    headers = [(REPLAYS, b"2"), ("sage.id", b"a"), ("sage.retry.attempts", b"0")]
    producer.produce(bench.setting.stage.retry_topic, b"1", b"k", headers, None, 0)
    producer.flush(0)
    turn(bench, actor, seconds=0.1, times=12)
    (branched,) = bench.produced("work", "error")
    assert REPLAYS not in text(branched)
    assert text(branched)["__connect.errors.stage"] == "work"
