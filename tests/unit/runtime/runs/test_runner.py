"""A plan in this process: threads, source tasks, bounded and endless runs, over a broker in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ClassVar

import pytest

from sage.errors import NotFound, StageStopped
from sage.graph.builder import StreamBuilder
from sage.graph.stream import DataStream
from sage.model.identity import SAGE_ID
from sage.model.json import Json
from sage.plan.planner import compile_plan
from sage.ports import TopicSpec
from sage.runtime.concurrent.bridge import LoopThread
from sage.runtime.runs.clock import SystemClock
from sage.runtime.runs.runner import TopologyRunner, World
from sage.spec.component import Operator, Source, UnboundedSource
from sage.spec.context import Context, OpenContext
from sage.state.in_memory import MemoryStores
from sage.testing.broker import InMemoryClients
from sage.testing.services import ScriptedServices
from sage.tracing.idle import IdleTracer
from tests.support.waiting import wait_until
from tests.unit.runtime.bench import text


class Feed(Source[Any]):
    """What a test puts into it; the position is how many were given. Ends when asked for a bounded run only."""

    values: ClassVar[list[Any]] = []
    endless: ClassVar[bool] = False
    opened: ClassVar[int] = 0
    closed: ClassVar[int] = 0

    async def open(self, ctx: OpenContext) -> None:
        Feed.opened += 1

    async def close(self) -> None:
        Feed.closed += 1

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        if bounded and Feed.endless:
            raise UnboundedSource
        at = position if isinstance(position, int) else 0
        while True:
            while at < len(Feed.values):
                at += 1
                yield Feed.values[at - 1], at
            if bounded:
                return
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def _fresh_feed() -> None:
    Feed.values.clear()
    Feed.endless, Feed.opened, Feed.closed = False, 0, 0


class Town:
    """A broker and a loop, on which runners are started as processes would be."""

    def __init__(self) -> None:
        self.clients = InMemoryClients()
        self.loop = LoopThread()
        self.runners: list[TopologyRunner] = []

    def runner(
        self, build: Callable[[DataStream[Any]], Any], *, fresh: bool = False, worker: str = "w1"
    ) -> TopologyRunner:
        builder = StreamBuilder("t")
        build(builder.from_source(Feed, name="feed", partitions=2))
        return self.of(builder, fresh=fresh, worker=worker)

    def of(self, builder: StreamBuilder, *, fresh: bool = False, worker: str = "w1") -> TopologyRunner:
        world = World(
            self.clients, ScriptedServices(), IdleTracer(), SystemClock(), self.loop, {}, worker, MemoryStores()
        )
        runner = TopologyRunner(compile_plan(builder.build()), world, fresh=fresh)
        runner.start()
        self.runners.append(runner)
        return runner

    def values(self, topic: str) -> list[bytes | None]:
        return sorted((message.value() for message in self.clients.messages(topic)), key=str)

    def close(self) -> None:
        for runner in self.runners:
            runner.stop(10)
        self.loop.close()


@pytest.fixture
def town() -> Iterator[Town]:
    made = Town()
    yield made
    made.close()


def work(stream: DataStream[Any]) -> None:
    stream.map(lambda value: value * 10, name="work")


def test_a_bounded_run_reports_what_went_in_and_out(town: Town) -> None:
    Feed.values.extend(range(20))
    report = town.runner(work).run_once(30)
    assert report.complete
    assert (report.read, report.steps["work"].read, report.steps["work"].written) == (20, 20, 20)
    assert len(town.values("t.work")) == 20
    assert (report.dead, report.dead_letters, report.waiting_for) == (0, 0, "")


def test_runs_follow_each_other_and_each_gives_only_what_is_new(town: Town) -> None:
    runner = town.runner(work)
    for number in range(5):
        Feed.values.append(number)
        report = runner.run_once(30)
        assert (report.complete, report.read, report.steps["work"].read, report.steps["work"].written) == (
            True,
            1,
            1,
            1,
        )
        assert len(town.values("t.work")) == number + 1


def test_dead_records_are_counted_by_the_growth_of_their_topic(town: Town) -> None:
    Feed.values.extend([1, "x", None, 4])
    report = town.runner(lambda s: s.map(lambda value: value + 1, name="work")).run_once(30)
    assert (report.complete, report.dead, report.dead_letters) == (True, 2, 2)
    assert report.steps["work"].last_error.startswith("TypeError")


def test_a_step_that_fails_while_it_is_being_stopped_is_named_and_not_called_slow(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    begun, release = threading.Event(), asyncio.Event()

    async def fails_late(value: Any) -> Any:
        begun.set()
        await release.wait()
        raise NotFound("no such model")  # of every record: the stage stops

    runner = town.runner(lambda s: s.map(fails_late, name="work"))
    Feed.values.extend(range(5))
    runner.order_sources(bounded=False)
    assert begun.wait(30)
    stopping = threading.Thread(target=runner.stop, args=(20.0,))
    stopping.start()
    wait_until(lambda: runner._stopped, what="the stop has begun")
    town.loop.loop.call_soon_threadsafe(release.set)
    stopping.join(30)
    assert isinstance(runner.failure, NotFound)
    told = [record.getMessage() for record in caplog.records]
    assert any("a step failed while it was being stopped" in one and "no such model" in one for one in told)
    assert not any("still at work" in one for one in told)


def test_a_run_that_takes_too_long_says_what_it_waited_for(town: Town) -> None:
    release = threading.Event()

    def block(value: int) -> int:
        release.wait(20)
        return value

    Feed.values.append(1)
    runner = town.runner(lambda s: s.map(block, name="work", blocking=True))
    report = runner.run_once(0.5)
    release.set()
    assert (report.complete, report.waiting_for) == (False, 'step "work": 1 records behind')
    assert runner.run_once(30).complete


def test_a_stage_that_stops_ends_the_run_with_its_error_and_the_next_process_goes_on(town: Town) -> None:
    broken = True

    def check(value: int) -> int:
        if broken and value == 2:
            raise NotFound("no collection 'handbook'")
        return value

    Feed.values.extend([1, 2, 3])
    builder = StreamBuilder("t")
    builder.from_source(Feed, name="feed").map(check, name="work")
    runner = town.of(builder)
    with pytest.raises(NotFound, match=r'step "work" at t\.feed-0@1: no collection'):
        runner.run_once(30)
    assert runner.failed
    runner.stop(10)
    broken = False
    assert town.of(builder).run_once(30).complete
    assert town.values("t.work") == [b"1", b"2", b"3"]


def test_a_source_that_never_ends_refuses_a_bounded_run(town: Town) -> None:
    Feed.endless = True
    with pytest.raises(StageStopped, match="this source never ends, so run_once would not either"):
        town.runner(work).run_once(30)


def test_an_endless_run_gives_what_comes_and_stops_when_asked(town: Town) -> None:
    Feed.endless = True
    Feed.values.extend([1, 2])
    runner = town.runner(work)
    runner.order_sources(bounded=False)
    wait_until(lambda: len(town.values("t.work")) == 2)
    Feed.values.append(3)
    wait_until(lambda: len(town.values("t.work")) == 3)
    runner.stop(10)
    assert (Feed.opened, Feed.closed) == (1, 1)
    committed = town.clients.committed("t.work")
    assert sum(committed.values()) == 3


def test_resuming_goes_on_and_starting_afresh_begins_again(town: Town) -> None:
    Feed.values.extend([1, 2])
    for fresh, count in ((True, 2), (False, 2), (True, 4)):
        runner = town.runner(work, fresh=fresh)
        assert runner.run_once(30).complete
        runner.stop(10)
        assert len(town.values("t.feed")) == count
    ids = {text(message)[SAGE_ID] for message in town.clients.messages("t.feed")}
    assert len(ids) == 4


def test_two_processes_share_the_work_and_either_can_end_the_run(town: Town) -> None:
    Feed.values.extend(range(30))
    first, second = town.runner(work), town.runner(work, worker="w2")
    assert first.run_once(30).complete
    Feed.values.extend(range(30, 40))
    first.stop(10)
    assert second.run_once(30).complete
    assert town.values("t.work") == sorted((b"%d" % (value * 10) for value in range(40)), key=str)


def test_a_step_that_cannot_be_opened_leaves_nothing_running(town: Town) -> None:
    class Closed(Operator[int, int]):
        async def open(self, ctx: OpenContext) -> None:
            raise NotFound("no model 'x'")

        def process(self, value: int, ctx: Context) -> int:
            return value

    with pytest.raises(NotFound, match='t step "second": no model'):
        town.runner(lambda s: s.map(lambda v: v, name="first").map(Closed, name="second", on_error="fail"))
    own = {"sage-first", "sage-second", "sage-sources"}
    assert not own & {thread.name for thread in threading.enumerate()}
    state: Any = town.clients._state
    assert all(not state.group(name).members for name in ("t.first", "t.second", "t.offsets"))


def test_a_foreign_topic_that_is_missing_is_named_before_anything_runs(town: Town) -> None:
    builder = StreamBuilder("t")
    builder.from_topic("lines", name="lines").map(lambda v: v, name="work")
    with pytest.raises(NotFound, match="topic 'lines' does not exist on in-memory; make it with"):
        town.of(builder)


def test_a_foreign_topic_is_read_to_where_it_ends_now(town: Town) -> None:
    town.clients.admin().create([TopicSpec("lines", 3)])
    producer = town.clients.producer()
    for number in range(9):
        producer.produce("lines", b"%d" % number)
    producer.flush(1)
    builder = StreamBuilder("t")
    builder.from_topic("lines", name="lines").map(lambda v: v, name="work")
    report = town.of(builder).run_once(30)
    assert (report.complete, report.read) == (True, 9)
    assert town.values("t.work") == [b"%d" % number for number in range(9)]


def test_stopping_drains_what_is_in_hand(town: Town) -> None:
    started = threading.Event()

    async def slow(value: int) -> int:
        started.set()
        await asyncio.sleep(0.3)
        return value

    Feed.values.extend(range(4))
    runner = town.runner(lambda s: s.map(slow, name="work"))
    runner.order_sources(bounded=False)
    assert started.wait(20)
    wait_until(lambda: len(town.values("t.feed")) == 4)
    runner.stop(10)
    done = len(town.values("t.work"))
    assert done > 0
    assert sum(town.clients.committed("t.work").values()) == done


def test_sources_at_rest_keep_their_tasks_and_go_on_where_they_were(town: Town) -> None:
    Feed.endless = True
    Feed.values.extend(range(5))
    runner = town.runner(work)
    runner.order_sources(bounded=False)
    wait_until(lambda: len(town.values("t.work")) == 5, what="the first are through")
    host = runner._host
    assert host is not None
    host.rest(True)
    wait_until(lambda: host.is_at_rest, what="the source rests")
    assert host.assignment == frozenset(host.tasks)
    Feed.values.extend(range(5, 9))
    saved = town.clients.messages("t.offsets")[-1].offset()
    host.rest(False)
    wait_until(lambda: len(town.values("t.work")) == 9, what="the others are through")
    assert not host.is_at_rest
    assert town.clients.messages("t.offsets")[-1].offset() >= saved
