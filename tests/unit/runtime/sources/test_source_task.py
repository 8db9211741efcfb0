"""Source tasks: what they give, what they keep, and where they go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sage.errors import SageError, StageStopped, TransientFailure
from sage.graph.builder import StreamBuilder
from sage.graph.topology import Input
from sage.model.identity import SAGE_ID
from sage.model.json import Json
from sage.model.partition import TopicPartition
from sage.model.record import Record
from sage.plan.planner import compile_plan
from sage.runtime.runs.assembly import assemble_source, bind_stage
from sage.runtime.runs.topics import prepare_topics
from sage.runtime.sources.positions import SourcePosition, load_position, position_key
from sage.runtime.sources.source_task import Orders, SourceTask
from sage.runtime.steps.codec import BYTES_MARK
from sage.runtime.steps.stage_context import StageSetting
from sage.spec.component import Source, UnboundedSource
from sage.spec.options import Guarantee
from sage.testing.broker import InMemoryClients, InMemoryMessage
from sage.testing.services import ScriptedServices
from sage.testing.virtual_time import ManualClock, VirtualLoop
from tests.unit.runtime.bench import OPEN, TRACE, SameTrace, end, text

PLACE = TopicPartition("t.offsets", 0)


class Script:
    """What the sources of a test read, and what befalls them; module state, as files are to real sources."""

    values: ClassVar[list[Any]] = []
    reads: ClassVar[list[tuple[Json, bool]]] = []
    failures: ClassVar[dict[int, list[Exception]]] = {}
    pace = 0.0


class Scripted(Source[Any]):
    """Values of the script; the position is how many were given."""

    class Config(BaseModel):
        endless: bool = False

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        if bounded and self.config.endless:
            raise UnboundedSource
        Script.reads.append((position, bounded))
        start = position if isinstance(position, int) else 0
        for index in range(start, len(Script.values)):
            if Script.failures.get(index):
                raise Script.failures[index].pop(0)
            if Script.pace:
                await asyncio.sleep(Script.pace)
            yield Script.values[index], index + 1


class Desk:
    """A source task in virtual time, which can be killed and begun again."""

    def __init__(
        self,
        *values: Any,
        source: type[Source[Any]] | None = None,
        endless: bool = False,
        message_max_bytes: int = 1_000_000,
        guarantee: Guarantee = "at_least_once",
        texts: bool = False,
    ) -> None:
        Script.values, Script.reads, Script.failures, Script.pace = list(values), [], {}, 0.0
        builder = StreamBuilder("t", guarantee=guarantee)
        builder.from_source(source or Scripted, {"endless": endless}, name="file").map(str, name="text")
        if texts:
            as_text = {"topic": "texts", "format": "str"}
            builder.add("sink", "topic", config=as_text, inputs=[Input("file")], base="to")
        self.plan = compile_plan(builder.build())
        self.clock = ManualClock()
        self.loop = VirtualLoop(self.clock)
        self.clients = InMemoryClients(now_ms=self.clock.now_ms, message_max_bytes=message_max_bytes)
        self.ids = {name: info.topic_id for name, info in prepare_topics(self.plan, self.clients).items()}
        self.orders = Orders()
        self.running: asyncio.Task[None] | None = None
        self._left: list[VirtualLoop] = []
        OPEN.append(self)

    def close(self) -> None:
        """End the loops, those of killed tasks too."""
        for loop in (*self._left, self.loop):
            end(loop)

    def begin(self, fresh_epoch: str | None = "epoch-1") -> None:
        self.running = self.loop.create_task(self.task(fresh_epoch).run())

    def task(self, fresh_epoch: str | None = None) -> SourceTask:
        """A task of this desk, for whatever loop."""
        stage = self.plan.by_name["file"]
        steps = bind_stage(self.plan, stage, ScriptedServices(), {})
        setting = StageSetting(self.plan, stage, steps, self.ids, self.clock, SameTrace(), "w1")
        hosted = assemble_source(setting)
        self.counters = steps[0].counters
        return SourceTask(setting, hosted.source, "0", PLACE, self.clients, self.orders, fresh_epoch)

    def order(self, *, bounded: bool = True) -> None:
        self.orders.bounded = bounded
        self.orders.number += 1

    def run(self, seconds: float = 0.1) -> None:
        end = self.clock.monotonic() + seconds
        self.loop.run_until_idle()
        while self.clock.monotonic() < end:
            timer = self.loop.next_timer
            self.clock.advance_to(end if timer is None else min(end, timer))
            self.loop.run_until_idle()

    def stop(self) -> None:
        """As a revoke does."""
        assert self.running is not None
        self.running.cancel()
        self.run()

    def kill(self) -> None:
        """As kill -9 does: nothing is written any more."""
        self._left.append(self.loop)
        self.loop = VirtualLoop(self.clock)
        self.running = None

    @property
    def failure(self) -> SageError:
        assert self.running is not None
        error = self.running.exception()
        assert isinstance(error, SageError)
        return error

    @property
    def given(self) -> list[InMemoryMessage]:
        return self.clients.messages("t.file")

    @property
    def values(self) -> list[Any]:
        return [orjson.loads(each.value() or b"null") for each in self.given]

    @property
    def ids_given(self) -> list[str]:
        return [text(each)[SAGE_ID] for each in self.given]

    @property
    def saved(self) -> SourcePosition | None:
        return load_position(self.clients, PLACE, position_key("file", "0"))


def test_nothing_is_read_before_it_is_ordered() -> None:
    desk = Desk(1, 2)
    desk.begin()
    desk.run(5)
    assert (desk.values, Script.reads) == ([], [])


def test_a_bounded_run_gives_all_there_is_and_says_that_it_is_exhausted() -> None:
    desk = Desk("a", "b")
    desk.begin()
    desk.order()
    desk.run()
    assert desk.values == ["a", "b"]
    assert Script.reads == [(None, True)]
    assert desk.saved == SourcePosition("epoch-1", 2, exhausted=True, run="w1#1")
    assert (desk.counters.read, desk.counters.written) == (2, 2)


def test_the_next_run_gives_only_what_is_new() -> None:
    desk = Desk("a")
    desk.begin()
    desk.order()
    desk.run()
    Script.values.append("b")
    desk.order()
    desk.run()
    assert desk.values == ["a", "b"]
    assert Script.reads == [(None, True), (1, True)]


def test_a_stopped_task_goes_on_where_it_was_under_the_same_epoch() -> None:
    desk = Desk("a", "b")
    desk.begin()
    desk.order()
    desk.run()
    desk.stop()
    Script.values.append("c")
    desk.begin(fresh_epoch=None)
    desk.run()
    assert desk.values == ["a", "b", "c"]
    assert {record_id.split(":")[0] for record_id in desk.ids_given} == {"epoch-1"}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_nothing_is_given_twice_after_an_owner_whose_clock_was_ahead(guarantee: Guarantee) -> None:
    desk = Desk("a", "b", "c", guarantee=guarantee)
    ahead = desk.clients.producer()
    data, key = SourcePosition("epoch-1", 1).encode(), position_key("file", "0")
    ahead.produce(PLACE.topic, data, key, timestamp=desk.clock.now_ms() + 300_000, partition=PLACE.partition)
    assert ahead.flush(1.0) == 0
    desk.order()
    for _ in range(2):
        desk.begin()
        desk.run()
        desk.stop()
    assert desk.values == ["b", "c"]
    assert Script.reads == [(1, True), (3, True)]


def test_a_fresh_start_begins_again_under_ids_of_its_own() -> None:
    desk = Desk("a", "b")
    desk.begin()
    desk.order()
    desk.run()
    desk.stop()
    desk.begin(fresh_epoch="epoch-2")
    desk.run()
    assert desk.values == ["a", "b", "a", "b"]
    assert len(set(desk.ids_given)) == 4


def test_a_task_that_moves_within_one_fresh_run_does_not_begin_again() -> None:
    desk = Desk("a", "b")
    desk.begin("epoch-1")
    desk.order()
    desk.run()
    desk.stop()
    desk.begin("epoch-1")
    desk.run()
    assert desk.values == ["a", "b"]


def test_the_epoch_is_written_before_the_first_record() -> None:
    desk = Desk("a", "b")
    desk.begin(fresh_epoch=None)
    desk.run(0.01)
    saved = desk.saved
    assert saved is not None
    assert (saved.position, saved.exhausted) == (None, False)
    desk.order()
    desk.run(0.03)
    desk.kill()
    desk.begin(fresh_epoch=None)
    desk.run()
    assert desk.saved is not None
    assert desk.saved.epoch == saved.epoch


def test_a_kill_between_checkpoints_gives_some_again_with_the_same_ids() -> None:
    desk = Desk(*range(10))
    Script.pace = 0.3
    desk.begin()
    desk.order(bounded=False)
    desk.run(1.9)
    given = len(desk.given)
    assert desk.saved is not None
    kept = desk.saved.position
    assert isinstance(kept, int)
    assert 0 < kept < given
    desk.kill()
    desk.begin(fresh_epoch=None)
    desk.run(10)
    assert sorted(set(desk.values)) == list(range(10))
    assert len(set(desk.ids_given)) == 10
    assert len(desk.ids_given) == 10 + given - kept


def test_positions_are_written_each_second_however_slow_the_source() -> None:
    desk = Desk(*range(150))
    Script.pace = 0.7
    desk.begin()
    desk.order(bounded=False)
    desk.run(100)
    assert desk.saved is not None
    assert isinstance(desk.saved.position, int)
    assert desk.saved.position >= len(desk.given) - 3


class Following(Scripted):
    """Waits for more at the end of the script, as a source that follows a file does."""

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        while True:
            async for value, after in super().read(task, position, bounded=False):
                yield value, after
                position = after
            await asyncio.sleep(5)


def test_a_source_that_has_nothing_more_for_now_keeps_its_position_all_the_same() -> None:
    desk = Desk("a", "b", source=Following)
    desk.begin()
    desk.order(bounded=False)
    desk.run(1.5)
    assert desk.saved == SourcePosition("epoch-1", 2)
    desk.kill()
    desk.begin(fresh_epoch=None)
    desk.run(20)
    assert desk.values == ["a", "b"]


def test_a_refusal_is_noticed_though_nothing_more_comes() -> None:
    desk = Desk("a", "b", source=Following)
    desk.begin()
    desk.order(bounded=False)
    desk.clients.fail_next_delivery("t.file")
    desk.run(4)
    assert set(desk.values) == {"a", "b"}
    assert desk.saved == SourcePosition("epoch-1", 2)


def test_an_exhausted_task_says_so_again_for_those_who_begin_to_wait_later() -> None:
    desk = Desk("a")
    desk.begin()
    desk.order()
    desk.run(3.5)
    words = [SourcePosition.decode(each.value() or b"") for each in desk.clients.messages("t.offsets", 0)]
    assert sum(word.exhausted for word in words) >= 3


def test_an_order_for_an_endless_run_is_passed_on() -> None:
    desk = Desk("a")
    desk.begin()
    desk.order(bounded=False)
    desk.run()
    assert Script.reads == [(None, False)]


def test_a_source_that_never_ends_refuses_a_bounded_run() -> None:
    desk = Desk("a", endless=True)
    desk.begin()
    desk.order()
    desk.run()
    assert isinstance(desk.failure, StageStopped)
    assert 't source "file": this source never ends' in str(desk.failure)


# --------------------------------------------------------------------------------------------- records


def test_a_record_keeps_its_key_time_and_headers_and_gets_a_trace_and_an_id() -> None:
    desk = Desk(Record({"q": 1}, key="ann", headers=[("a", b"1"), ("null", None)], timestamp=77))
    desk.begin()
    desk.order()
    desk.run()
    (given_,) = desk.given
    assert (given_.key(), given_.value(), given_.timestamp()) == (b"ann", b'{"q":1}', (1, 77))
    assert given_.headers() == [TRACE, ("a", b"1"), ("null", None), (SAGE_ID, desk.ids_given[0].encode())]


def test_a_record_that_comes_with_a_trace_keeps_it() -> None:
    desk = Desk(Record(1, headers=[("traceparent", b"theirs")]))
    desk.begin()
    desk.order()
    desk.run()
    assert [value for name, value in desk.given[0].headers() or [] if name == "traceparent"] == [b"theirs"]


def test_bytes_are_marked_and_none_is_kafkas_null() -> None:
    desk = Desk(b"\xff", None)
    desk.begin()
    desk.order()
    desk.run()
    raw, null = desk.given
    assert raw.value() == b"\xff"
    assert (raw.headers() or [])[-1] == BYTES_MARK
    assert null.value() is None


# -------------------------------------------------------------------------------------------- failures


def test_a_record_over_the_limit_stops_the_source_naming_the_place_before_it() -> None:
    desk = Desk("a", "x" * 5_000, "c", message_max_bytes=2_000)
    desk.begin()
    desk.order()
    desk.run()
    assert isinstance(desk.failure, StageStopped)
    assert "the record up to position 2: a record of" in str(desk.failure)
    assert "is over message.max.bytes=2000" in str(desk.failure)
    assert desk.values == ["a"]
    assert desk.saved is not None
    assert desk.saved.position == 1


def test_a_value_without_a_form_stops_the_source_naming_the_place_before_it() -> None:
    desk = Desk(object())
    desk.begin()
    desk.order()
    desk.run()
    assert "has no JSON form" in str(desk.failure)
    assert "the record up to position 1: " in str(desk.failure)


def test_a_transient_failure_is_waited_out_and_nothing_is_left_out() -> None:
    desk = Desk(*range(6))
    Script.failures = {3: [ConnectionError("reset"), TransientFailure("busy")]}
    desk.begin()
    desk.order()
    desk.run(0.05)
    assert desk.values == [0, 1, 2]
    desk.run(5)
    assert desk.values == list(range(6)), "what was given before the failure is not given again"
    assert len(set(desk.ids_given)) == 6
    assert desk.counters.retried == 2


def test_failing_again_and_again_at_one_place_is_bounded() -> None:
    desk = Desk(*range(6))
    Script.failures = {3: [ConnectionError("reset") for _ in range(50)]}
    desk.begin()
    desk.order()
    desk.run(120)
    assert "ConnectionError: reset; after position 3" in str(desk.failure)
    assert len(Script.failures[3]) == 45


def test_failures_at_different_places_are_counted_apart() -> None:
    desk = Desk(*range(8))
    Script.failures = {index: [ConnectionError("reset") for _ in range(3)] for index in range(8)}
    desk.begin()
    desk.order()
    desk.run(600)
    assert desk.saved is not None
    assert (desk.saved.position, desk.saved.exhausted) == (8, True)
    assert sorted(set(desk.values)) == list(range(8))


def test_a_bug_in_a_source_stops_it_with_its_place() -> None:
    desk = Desk(*range(6))
    Script.failures = {3: [KeyError("column")]}
    desk.begin()
    desk.order()
    desk.run()
    assert str(desk.failure).startswith("t source \"file\": KeyError: 'column'; after position 3")


@pytest.mark.parametrize("retriable", [True, False])
def test_no_position_is_ever_written_past_a_record_that_was_not_taken(retriable: bool) -> None:
    desk = Desk(*range(5))
    desk.clients.fail_next_delivery("t.file", reason="NOPE", retriable=retriable)
    desk.begin()
    desk.order()
    desk.run(5)
    if retriable:
        assert sorted(set(desk.values)) == list(range(5))
        return
    assert "t.file did not take a record: NOPE" in str(desk.failure)
    assert desk.saved is not None
    assert desk.saved.position is None
    desk.begin(fresh_epoch=None)
    desk.run(5)
    assert sorted(set(desk.values)) == list(range(5))


@settings(max_examples=50)
@given(
    st.integers(0, 12),
    st.lists(st.tuples(st.sampled_from(["kill", "stop", "refuse", "grow", "run"]), st.integers(1, 30)), max_size=10),
)
def test_whatever_happens_every_value_is_given_and_has_one_id(count: int, events: list[tuple[str, int]]) -> None:
    desk = Desk(*range(count))
    Script.pace = 0.15
    desk.begin()
    desk.order(bounded=False)
    for event, tenths in events:
        desk.run(tenths / 10)
        match event:
            case "kill":
                desk.kill()
                desk.begin(fresh_epoch=None)
            case "stop":
                desk.stop()
                desk.begin(fresh_epoch=None)
            case "refuse":
                desk.clients.fail_next_delivery("t.file")
            case "grow":
                Script.values.extend(range(len(Script.values), len(Script.values) + 3))
                desk.order(bounded=False)
    desk.order()
    desk.run(300)
    assert sorted(set(desk.values)) == list(range(len(Script.values)))
    ids = {(value, record_id) for value, record_id in zip(desk.values, desk.ids_given, strict=True)}
    assert len(ids) == len(Script.values)
    assert desk.saved is not None
    assert (desk.saved.position, desk.saved.exhausted) == (len(Script.values) or None, True)
