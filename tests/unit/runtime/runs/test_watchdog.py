"""A stage that is assigned, lags and does not move is named; one that is slow and moves is not."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sage.cli.commands import topology_run
from sage.environments.local import LocalEnvironment
from sage.errors import InvalidTopology, StageStopped
from sage.runtime.actors.actor import Actor
from sage.runtime.runs.housekeeping import LOOK_EVERY, Housekeeping
from sage.runtime.runs.watchdog import ALARM_VARIABLE, IN_VAIN_AFTER, STALLED_AFTER, Watchdog, alarm_after
from tests.unit.runtime.acting import Gate, gated_bench, sync_bench, turn
from tests.unit.runtime.bench import Bench, at


def watch(bench: Bench, watchdog: Watchdog, seconds: float, *actors: Actor) -> None:
    """Let time pass, with a look every few seconds, and turns of these."""
    watchdog.look()
    until = bench.clock.monotonic() + seconds
    while bench.clock.monotonic() < until:
        if actors:
            turn(bench, *actors)
        bench.run(LOOK_EVERY)
        watchdog.look()


def test_a_quiet_stage_whose_next_call_is_slow_does_not_stand_still() -> None:
    """The quiet before it is none of the record's time, and a slow call ends in time."""
    bench = gated_bench(gate := Gate())
    actor = bench.actor()
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock)
    for value in ("a", "b"):
        watch(bench, watchdog, 10 * STALLED_AFTER, actor)
        bench.feed(value)
        watch(bench, watchdog, STALLED_AFTER - 2 * LOOK_EVERY, actor)
        assert watchdog.alarms == {}
        gate.open(value)
        turn(bench, actor, times=3)
    bench.feed("c")
    watch(bench, watchdog, STALLED_AFTER + 2 * LOOK_EVERY, actor)
    assert watchdog.alarms["work"].lag == 1
    assert watchdog.alarms["work"].seconds < STALLED_AFTER + 2 * LOOK_EVERY


def test_a_stage_that_stands_still_is_named_once_and_taken_back_when_it_moves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    bench = gated_bench(gate)
    actor = bench.actor()
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock)
    bench.feed("a", "b")
    turn(bench, actor, times=3)
    with caplog.at_level(logging.ERROR):
        watch(bench, watchdog, STALLED_AFTER + 2 * LOOK_EVERY, actor)
    (alarm,) = watchdog.alarms.values()
    assert (alarm.stage, alarm.partitions, alarm.behind) == ("work", 1, {at(): 2})
    assert "1 partition assigned, 2 records behind (in-0 by 2), nothing committed for 6" in str(alarm)
    assert "give the step a timeout" in str(alarm)
    assert len([record for record in caplog.records if "stands still" in record.message]) == 1
    gate.open("a", "b")
    turn(bench, actor, times=5)
    watchdog.look()
    assert watchdog.alarms == {}


def test_a_stage_that_does_the_same_records_again_and_again_is_named() -> None:
    bench = Bench(lambda stream: stream.map(str, name="work").to("out"))
    actor = bench.actor()
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock)
    turn(bench, actor)
    bench.feed("a", "b")
    (step,) = actor.setting.steps
    watchdog.look()
    for _ in range(int(IN_VAIN_AFTER / 10)):
        assert watchdog.alarms == {}
        bench.clock.advance_to(bench.clock.monotonic() + 10.0)  # a transaction timed out, and was begun again
        step.counters.read += 2
        watchdog.look()
    for _ in range(2):  # seen first when they had waited already
        step.counters.read += 2
        watchdog.look()
        bench.clock.advance_to(bench.clock.monotonic() + 10.0)
    (alarm,) = watchdog.alarms.values()
    assert "again and again, and never committed" in str(alarm)
    turn(bench, actor, times=5)
    bench.clock.advance_to(bench.clock.monotonic() + 2.0)
    turn(bench, actor, times=5)
    watchdog.look()
    assert watchdog.alarms == {}


def test_a_stage_without_records_is_at_rest_and_not_stalled_nor_when_the_first_one_comes() -> None:
    bench = gated_bench(gate := Gate())
    actor = bench.actor()
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock)
    turn(bench, actor)
    watch(bench, watchdog, STALLED_AFTER + 1)
    watchdog.look()
    assert watchdog.alarms == {}
    for value in ("a", "b"):
        bench.feed(value)
        watchdog.look()  # it is there, and not read yet
        gate.open(value)
        turn(bench, actor, times=3)
        watch(bench, watchdog, STALLED_AFTER + 1)
    assert watchdog.alarms == {}


def test_a_process_that_was_stopped_itself_takes_none_of_its_stages_for_still() -> None:
    bench = gated_bench(Gate())
    actor = bench.actor()
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock)
    bench.feed("a")
    turn(bench, actor, times=3)
    watch(bench, watchdog, STALLED_AFTER / 2)
    bench.clock.advance_to(bench.clock.monotonic() + 10 * STALLED_AFTER)
    watchdog.look()
    assert watchdog.alarms == {}
    watch(bench, watchdog, STALLED_AFTER / 2 + LOOK_EVERY)
    assert watchdog.alarms["work"].seconds < STALLED_AFTER + 2 * LOOK_EVERY


def test_a_call_that_may_take_longer_is_waited_for() -> None:
    gate = Gate()

    async def call(value: Any) -> Any:
        return await gate(value)

    bench = Bench(lambda stream: stream.map(call, name="work", timeout=600, retry={"attempts": 1}))
    actor = bench.actor()
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock)
    bench.feed("a")
    for _ in range(59):
        turn(bench, actor, seconds=10)
        watchdog.look()
    assert watchdog.alarms == {}
    assert len(gate.held) == 1


def test_code_that_does_not_return_is_told_from_records_that_do_not_come() -> None:
    bench = sync_bench()
    actor = bench.actor()
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock, 5.0)
    turn(bench, actor)
    bench.feed("a")
    for _ in range(4):  # no turn of the actor's comes to an end
        watchdog.look()
        bench.run(2.6)
    assert "its code does not return" in str(watchdog.alarms["work"])
    actor.progress.turns += 1  # one did, and brought nothing
    watchdog.look()
    assert "records are not fetched" in str(watchdog.alarms["work"])


def test_a_drain_is_not_taken_for_code_that_does_not_return() -> None:
    bench = gated_bench(Gate())
    actor = bench.actor()
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock, 2.0)
    bench.feed("a")
    for _ in range(12):
        turn(bench, actor)
        bench.run(0.5)
        watchdog.look()
    assert "records are at work that don't end" in str(watchdog.alarms["work"])
    actor.setting.stopping.set()
    bench.run(20.0)  # it is drained, in vain, on the thread that takes its turns
    watchdog.look()
    assert "records are at work that don't end" in str(watchdog.alarms["work"])


@pytest.mark.parametrize(("text", "seconds"), [("", STALLED_AFTER), ("5m", 300.0), ("1500ms", 1.5)])
def test_how_long_a_stage_may_stand_still_is_said_by_a_variable(text: str, seconds: float) -> None:
    assert alarm_after({ALARM_VARIABLE: text}) == alarm_after({ALARM_VARIABLE: text, "OTHER": "1"}) == seconds


def test_a_time_to_the_alarm_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidTopology, match=r"SAGE_ALARM_AFTER: 'soon' is not a duration"):
        alarm_after({ALARM_VARIABLE: "soon"})


def house(bench: Bench, actor: Actor) -> tuple[Housekeeping, Watchdog]:
    """Housekeeping with a watchdog that has just found that ``actor`` stands still."""
    watchdog = Watchdog("t", [actor], bench.clients.admin(), bench.clock)
    kept = Housekeeping(watchdog, cast(Any, None))
    kept.start()
    bench.feed("a")
    turn(bench, actor, times=3)
    watch(bench, watchdog, STALLED_AFTER + 2 * LOOK_EVERY)
    assert watchdog.alarms
    return kept, watchdog


def test_a_stage_that_stood_still_to_the_end_ends_with_its_alarm() -> None:
    bench = gated_bench(Gate())
    actor = bench.actor()
    kept, _ = house(bench, actor)
    actor.stop(0.0)
    actor.run(lambda _: None)
    kept.stop()
    assert [alarm.stage for alarm in kept.alarms] == ["work"]


def test_a_slow_stage_that_ends_its_work_when_it_is_drained_ends_without_alarm() -> None:
    gate = Gate()
    bench = gated_bench(gate)
    actor = bench.actor()
    kept, _ = house(bench, actor)
    gate.open("a")
    actor.stop(5.0)
    actor.run(lambda _: None)
    kept.stop()
    assert kept.alarms == []


def test_a_run_whose_step_failed_while_it_was_being_stopped_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = LocalEnvironment("t")
    environment.from_collection([1]).map(str, name="work").collect()
    monkeypatch.setattr(LocalEnvironment, "submit", lambda self: None)
    monkeypatch.setattr(LocalEnvironment, "run_streaming", lambda self, *, block: None)
    monkeypatch.setattr(topology_run, "terminal", lambda: SimpleNamespace(note=lambda text: None))
    monkeypatch.setattr(LocalEnvironment, "failure", StageStopped("its disk is full"))
    with pytest.raises(StageStopped, match="its disk is full"):
        topology_run._stream(environment)
    monkeypatch.setattr(topology_run, "_once", lambda environment, limit: None)  # as SIGTERM ends it
    with pytest.raises(StageStopped, match="its disk is full"):
        topology_run._bounded(environment, None, False, 0)


def test_a_run_that_stood_still_to_the_end_fails_and_names_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology_run, "terminal", lambda: SimpleNamespace(note=lambda text: None))
    environment = LocalEnvironment("t")
    environment.from_collection([1]).map(str, name="work").collect()
    monkeypatch.setattr(LocalEnvironment, "submit", lambda self: None)
    monkeypatch.setattr(LocalEnvironment, "run_streaming", lambda self, *, block: None)
    assert topology_run._stream(environment) == 0
    monkeypatch.setattr(LocalEnvironment, "stalled", ('step "work" stands still',))
    with pytest.raises(StageStopped, match='step "work" stands still') as caught:
        topology_run._stream(environment)
    assert caught.value.exit_code == 1
