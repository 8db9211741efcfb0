"""Failures that other systems of this kind have had, where no other test is about them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sage.runtime.runs.assembly import assemble_actor
from sage.state.rocks import RocksStores
from sage.testing.in_memory_producer import InMemoryProducer
from tests.unit.runtime.acting import (
    Gate,
    committed,
    consumer_of,
    counting,
    counting_later,
    gated_bench,
    keyed_bench,
    sync_bench,
    turn,
)
from tests.unit.runtime.bench import Bench, at

EXACTLY: Any = {"guarantee": "exactly_once"}


def test_a_transaction_is_opened_when_the_results_exist_and_not_while_a_call_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slow model's time is none of the transaction's, which the broker ends after ten seconds."""
    gate = Gate()
    bench = gated_bench(gate, **EXACTLY)
    actor = bench.actor()
    begin, begun = InMemoryProducer.begin_transaction, list[float]()

    def watched(self: InMemoryProducer) -> None:
        begun.append(bench.clock.monotonic())
        begin(self)

    monkeypatch.setattr(InMemoryProducer, "begin_transaction", watched)
    bench.feed("a")
    turn(bench, actor, seconds=1.0, times=40)
    assert len(gate.held) == 1
    assert begun == []
    gate.open("a")
    turn(bench, actor, seconds=0.15, times=6)
    assert len(begun) == 1
    assert (bench.out(), committed(bench)) == (["a"], {at(): 1})


async def _later(value: Any) -> Any:
    return _faltering(value)


def _faltering(value: Any) -> Any:
    if value == "bad":
        raise ValueError(value)
    return value


STAGES: dict[str, Any] = {
    "sync": lambda: sync_bench(_faltering, **EXACTLY),
    "async": lambda: Bench(lambda s: s.map(_later, name="work"), **EXACTLY),
    "keyed": lambda: keyed_bench(counting, **EXACTLY),
    "keyed async": lambda: keyed_bench(counting_later, **EXACTLY),
}


@pytest.mark.parametrize("kind", STAGES)
def test_nothing_of_an_exactly_once_stage_is_sent_outside_its_transaction(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs, dead letters and changes of state alike."""
    bench = STAGES[kind]()
    actor = bench.actor()
    bench.feed("a", "bad", "b", None, keys=[b"1", b"2", b"1", None])
    produce, sent = InMemoryProducer.produce, list[tuple[str, bool]]()

    def watched(self: InMemoryProducer, topic: str, *arguments: Any, **options: Any) -> None:
        sent.append((topic, self._transactional_id in bench.clients._state.open))
        produce(self, topic, *arguments, **options)

    monkeypatch.setattr(InMemoryProducer, "produce", watched)
    turn(bench, actor, seconds=0.15, times=8)
    assert committed(bench) == {at(): 4}
    wanted = {"t.work", "t.work.changelog", "t.dlq"} if kind.startswith("keyed") else {"t.work", "t.dlq"}
    assert {topic for topic, _ in sent} == wanted
    assert all(in_transaction for _, in_transaction in sent), sent


def test_no_two_actors_share_a_transactional_id_whatever_they_host() -> None:
    """They would fence each other for ever."""
    bench = Bench(
        lambda s: s.map(_faltering, name="work").map(_later, name="later").map(_faltering, name="last"), **EXACTLY
    )
    names: list[str] = []
    for stage in bench.plan.stages:
        bench._stage = stage
        names += [bench.actor().transactional_id for _ in range(3)]
    assert len(bench.plan.stages) > 1
    assert len(set(names)) == len(names) == 3 * len(bench.plan.stages)
    assert all(name.startswith("t.") for name in names)


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_partition_that_goes_leaves_no_lock_on_its_database_and_its_state_is_there_when_it_comes_back(
    tmp_path: Path, guarantee: Any
) -> None:
    """Lost with work in hand, in the middle of a sweep; the same process gets it back, then another one's stores."""
    bench = keyed_bench(counting, ttl=3600, guarantee=guarantee)
    stores = RocksStores(tmp_path)
    keys = [b"k%d" % n for n in range(30)]
    actor = assemble_actor(bench.new_setting(), bench.clients, bench.bridge, stores)
    actor.open()
    for round_number in range(1, 4):
        bench.feed(*range(30), keys=keys)
        turn(bench, actor, seconds=1.1, times=6)
        assert bench.out()[-30:] == [[n, round_number] for n in range(30)]
        consumer_of(actor).lose()
        turn(bench, actor, seconds=0.1, times=2)
    actor.stop(1.0)
    actor.run(lambda failed: pytest.fail(f"failed: {failed.failure}"))
    again = assemble_actor(bench.new_setting(), bench.clients, bench.bridge, stores)
    again.open()
    bench.feed(*range(30), keys=keys)
    turn(bench, again, seconds=0.15, times=8)
    assert bench.out()[-30:] == [[n, 4] for n in range(30)]
    again.stop(1.0)
    again.run(lambda failed: pytest.fail(f"failed: {failed.failure}"))
    stores.close()
