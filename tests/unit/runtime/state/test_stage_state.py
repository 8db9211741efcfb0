"""The state of one stage: partitions that come and go, and changes on their way through a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from sage.errors import RecordTooLarge, StageStopped
from sage.graph.stream import DataStream
from sage.model.partition import TopicPartition
from sage.runtime.batches.outbox import Outbox
from sage.runtime.state.copy_facts import FRESHEN_MS, CopyFacts
from sage.runtime.state.stage_state import Fired, StageState
from sage.runtime.state.table import PartitionTable
from sage.state.in_memory import MemoryStores
from tests.unit.runtime.bench import Bench

CHANGELOG = "t.count.changelog"


def count(value: Any, ctx: Any) -> Iterator[Any]:
    ctx.state["n"] = ctx.state.get("n", 0) + 1
    yield ctx.state["n"]


def ring(name: str, ctx: Any) -> Iterator[Any]:
    yield name


class World:
    """A ``process`` stage that reads ``in``, its state, and the means of a checkpoint."""

    def __init__(self, *, partitions: int = 2, ttl: float | None = None, limit: int = 1_000_000) -> None:
        def build(stream: DataStream[Any]) -> Any:
            return stream.key_by("k", name="k", partitions=partitions).process(
                count, name="count", on_timer=ring, ttl=ttl
            )

        self.bench = Bench(build, stage="count", message_max_bytes=limit)
        self.stores = MemoryStores()
        self.holds = self.bench.holds()
        self.outbox = Outbox(self.bench.producer)
        self.topic = self.bench.setting.stage.inputs[0].topic
        self.state = self.new_state()

    def new_state(self) -> StageState:
        return StageState(self.bench.new_setting(), self.bench.clients, self.stores)

    def at(self, *numbers: int) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in numbers]

    def assign(self, *numbers: int) -> None:
        self.state.assigned(self.at(*numbers), self.holds)
        while self.state.progress:
            self.state.restore(self.holds)

    def count(self, key: bytes, number: int = 0, by: int = 1) -> None:
        work = self.state.begin(number, key)
        work.state["n"] = work.state.get("n", 0) + by
        self.state.prepare([self.state.finish(number, work)])

    def checkpoint(self) -> None:
        self.state.write_changes(self.outbox)
        assert self.outbox.settle(1) == []
        assert self.state.take_failures() == []
        self.state.keep_changes()

    def changelog(self, number: int = 0) -> list[tuple[bytes | None, Any]]:
        return [
            (message.key(), None if (value := message.value()) is None else orjson.loads(value))
            for message in self.bench.clients.messages(CHANGELOG, number)
        ]


@pytest.fixture
def world() -> World:
    return World()


def test_a_partition_is_held_until_its_copy_is_complete(world: World) -> None:
    world.assign(0)
    world.count(b"a")
    world.checkpoint()
    world.state.close()
    world.stores.forget()
    world.state = world.new_state()
    (at,) = world.at(0)
    world.state.assigned([at], world.holds)
    assert world.holds.holds(at)
    assert list(world.state.progress) == [0]
    world.state.restore(world.holds)
    assert not world.holds.holds(at)
    assert world.state.begin(0, b"a").state == {"n": 1}


def test_changes_go_into_the_partition_of_their_input_one_for_each_key(world: World) -> None:
    world.assign(0, 1)
    for _ in range(3):
        world.count(b"a", 0)
    world.count(b"a", 1)
    assert world.state.is_dirty
    world.checkpoint()
    assert world.changelog(0) == [(b"a", {"s": {"n": 3}})]
    assert world.changelog(1) == [(b"a", {"s": {"n": 1}})]
    assert not world.state.is_dirty


def test_a_copy_knows_how_far_it_is(world: World) -> None:
    world.assign(0)
    world.count(b"a")
    world.count(b"b")
    world.checkpoint()
    assert world.stores.open("t", "count", 0).applied == 2


def test_what_is_not_kept_goes_with_the_partition(world: World) -> None:
    world.assign(0)
    world.count(b"a")
    world.checkpoint()
    world.count(b"a")
    world.state.lost(world.at(0))
    assert not world.state.is_dirty
    world.assign(0)
    assert world.state.begin(0, b"a").state == {"n": 1}


def test_a_work_of_an_assignment_that_is_over_changes_nothing(world: World) -> None:
    """Decision 7: results with a dead number are thrown away, though the partition came back."""
    world.assign(0)
    late = world.state.begin(0, b"a")
    late.state["n"] = 9
    world.state.lost(world.at(0))
    world.assign(0)
    world.state.prepare([world.state.finish(0, late)])
    assert not world.state.is_dirty
    assert world.state.begin(0, b"a").state == {}


def test_state_of_a_partition_that_is_not_here_is_told(world: World) -> None:
    with pytest.raises(StageStopped, match="state of partition 3 is not here"):
        world.state.begin(3, b"a")


def test_the_retry_partition_shares_its_inputs_table(world: World) -> None:
    retry = TopicPartition(world.bench.setting.stage.retry_topic, 0)
    world.assign(0)
    world.count(b"a")
    world.state.assigned([retry], world.holds)
    world.state.lost([retry])
    assert world.state.begin(0, b"a").state == {"n": 1}


def test_a_change_over_the_limit_is_its_records_failure() -> None:
    world = World(limit=2_000)
    world.state.check_size = world.outbox.check_size
    world.assign(0)
    work = world.state.begin(0, b"a")
    work.state["text"] = "x" * 2_000
    with pytest.raises(RecordTooLarge, match=CHANGELOG):
        world.state.finish(0, work)
    assert world.state.begin(0, b"a").state == {}


@pytest.mark.parametrize("forget", ["forget_changes", "drop_changes"])
def test_a_change_that_the_broker_finds_too_large_stops_the_stage(world: World, forget: str) -> None:
    world.assign(0)
    world.count(b"a")
    world.bench.clients.fail_next_delivery(CHANGELOG, reason="too large", too_large=True, retriable=False)
    world.state.write_changes(world.outbox)
    world.outbox.settle(1)
    with pytest.raises(StageStopped, match=r"did not take a key's state: too large; raise its max\.message\.bytes"):
        getattr(world.state, forget)()


def test_failures_of_changes_are_told_apart_from_those_of_outputs(world: World) -> None:
    world.assign(0)
    world.count(b"a")
    world.bench.clients.fail_next_delivery(CHANGELOG, reason="not now")
    world.state.write_changes(world.outbox)
    assert world.outbox.settle(1) == []
    assert [failure.reason for failure in world.state.take_failures()] == ["not now"]
    world.checkpoint()
    assert world.changelog() == [(b"a", {"s": {"n": 1}})]


def test_an_answer_that_comes_after_a_partition_went_does_not_count_for_its_next_copy(world: World) -> None:
    world.assign(0)
    world.count(b"a")
    (gone,) = [table for number, table in world.state._tables.items() if number == 0]
    world.state.lost(world.at(0))
    world.assign(0)
    gone.acknowledged(None, 0, 99)
    world.count(b"b")
    world.checkpoint()
    assert world.stores.open("t", "count", 0).applied == 1


# ---------------------------------------------------------------------------------------------- timers


def set_timer(world: World, key: bytes, *, after: float, number: int = 0) -> None:
    work = world.state.begin(number, key)
    work.timers.set("ring", after=after)
    world.state.prepare([world.state.finish(number, work)])


def due(world: World) -> list[Fired]:
    return list(world.state.due())


def test_a_timer_has_the_same_identity_when_it_fires_again_after_a_crash(world: World) -> None:
    world.assign(0, 1)
    set_timer(world, b"a", after=5)
    set_timer(world, b"a", after=5, number=1)
    set_timer(world, b"b", after=6)
    world.checkpoint()
    world.bench.run(10)
    first = due(world)
    world.state.close()
    world.stores.forget()
    world.state = world.new_state()
    world.assign(0, 1)
    again = due(world)
    assert [fired.record_id for fired in again] == [fired.record_id for fired in first]
    assert [fired.message.key() for fired in again] == [b"a", b"b", b"a"]
    assert len({fired.record_id for fired in again}) == 2, "a key has one identity, wherever it lives"


def test_timers_wait_for_the_restore(world: World) -> None:
    world.assign(0)
    set_timer(world, b"a", after=5)
    world.checkpoint()
    world.bench.run(10)
    world.state.close()
    world.state = world.new_state()
    world.state.assigned(world.at(0), world.holds)
    assert due(world) == []
    assert world.state.next_due is None
    world.state.restore(world.holds)
    assert [fired.due.name for fired in due(world)] == ["ring"]


def test_a_timer_that_a_record_moves_before_its_turn_is_not_set_any_more(world: World) -> None:
    world.assign(0)
    set_timer(world, b"a", after=5)
    world.bench.run(10)
    (fired,) = due(world)
    assert world.state.is_set(fired)
    set_timer(world, b"a", after=60)
    assert not world.state.is_set(fired)
    world.state.lost(world.at(0))
    assert not world.state.is_set(fired)


# -------------------------------------------------------------------------------------- ttl, freshness


def test_the_sweep_runs_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(ttl=60)
    world.assign(0)
    world.count(b"a")
    world.checkpoint()
    world.bench.run(61)
    looks: list[int] = []
    sweep = PartitionTable.sweep

    def watched(table: PartitionTable, now_ms: int) -> object:
        looks.append(now_ms)
        return sweep(table, now_ms)

    monkeypatch.setattr(PartitionTable, "sweep", watched)
    for _ in range(3):
        world.state.sweep()
    assert len(looks) == 1
    world.checkpoint()
    assert world.changelog()[-1] == (b"a", None)


def test_a_copy_that_is_in_use_stays_fresh_without_any_change(world: World) -> None:
    world.assign(0)
    store = world.stores.open("t", "count", 0)
    first = CopyFacts.of(store)
    for _ in range(FRESHEN_MS // 1000 + 1):
        world.bench.run(1)
        world.state.sweep()
    later = CopyFacts.of(store)
    assert first is not None
    assert later is not None
    assert later.complete - first.complete >= FRESHEN_MS
    world.bench.run(30)
    world.state.lost(world.at(0))
    last = CopyFacts.of(store)
    assert last is not None
    assert last.complete - later.complete == 30_000


def test_a_copy_of_a_process_that_was_stopped_is_not_said_to_be_complete_when_it_goes_on(world: World) -> None:
    """Another one may have had the partition since: what that one deleted may be compacted away by now."""
    world.assign(0)
    store = world.stores.open("t", "count", 0)
    world.state.sweep()
    first = CopyFacts.of(store)
    world.bench.run(30 * 3600)
    world.state.sweep()
    world.bench.run(2)
    world.state.sweep()
    world.state.lost(world.at(0))  # as it is told now
    assert CopyFacts.of(store) == first
