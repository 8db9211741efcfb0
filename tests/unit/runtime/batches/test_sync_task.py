"""Synchronous stages: the batch, its outputs, and what may be committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.errors import NotFound, StageStopped, TransientFailure
from sage.model.identity import SAGE_ID, topic_root
from sage.model.partition import TopicPartition
from sage.ports import Commit
from sage.runtime.batches import sync_task
from sage.runtime.batches.sync_task import SyncTask
from sage.runtime.steps.codec import BYTES_MARK
from sage.spec.component import Operator
from sage.spec.context import Context
from sage.spec.options import RetryOptions
from tests.unit.runtime.acting import revoked
from tests.unit.runtime.bench import IN, TRACE, Bench, at, text

OFTEN: RetryOptions = {"attempts": 3, "backoff": 0.2, "max_backoff": 1}


def flaky(failures: int, error: Exception) -> Callable[[Any], Any]:
    """Raises ``failures`` times for each value, then gives it back."""
    tries: dict[Any, int] = {}

    def run(value: Any) -> Any:
        tries[value] = tries.get(value, 0) + 1
        if tries[value] <= failures:
            raise error
        return value

    return run


def refuse(*bad: Any, error: Callable[[Any], Exception] = ValueError) -> Callable[[Any], Any]:
    def run(value: Any) -> Any:
        if value in bad:
            raise error(value)
        return value

    return run


def letting_through(task: SyncTask, bench: Bench, start: int = 0) -> dict[TopicPartition, int]:
    """What an actor does until nothing moves: hand over, settle, rewind."""
    position = start
    for _ in range(20):
        messages = bench.came(position)
        if messages:
            task.accept(messages)
            position = messages[-1].offset() + 1
        settled = task.settled()
        rewinds = task.rewinds()
        if not rewinds and not bench.came(position):
            return settled
        for partition, offset in rewinds.items():
            assert partition == at()
            position = offset
        task.rewound(tuple(rewinds))
    raise AssertionError("it never settled")


# --------------------------------------------------------------------------------------- the good way


def test_a_batch_is_mapped_in_order_and_settles_at_its_end() -> None:
    bench = Bench(lambda s: s.map(lambda v: v * 2, name="double"))
    task = bench.sync_task()
    task.accept(bench.feed(1, 2, 3))
    assert task.settled() == {at(): 3}
    assert bench.out() == [2, 4, 6]
    assert task.idle()


def test_nothing_is_settled_before_anything_was_seen() -> None:
    task = Bench(lambda s: s.map(str, name="text")).sync_task()
    task.assigned({at(): Commit(None)})
    assert task.settled() == {}
    assert task.rewinds() == {}


def test_key_timestamp_and_headers_go_on_in_order_with_the_id_last() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"))
    feeder = bench.clients.producer()
    headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None)]
    feeder.produce(IN, b"1", b"k", headers, timestamp=123)
    task = bench.sync_task()
    task.accept(bench.came())
    task.settled()
    (sent,) = bench.produced()
    assert (sent.key(), sent.timestamp()) == (b"k", (1, 123))
    root = topic_root(bench.setting.topic_ids[IN], 0, 0)
    assert sent.headers() == [*headers, TRACE, (SAGE_ID, root.encode())]


@pytest.mark.parametrize("with_ctx", [False, True])
def test_null_empty_and_plain_bytes_pass(with_ctx: bool) -> None:
    def plain(value: Any) -> Any:
        return value

    def careful(value: Any, ctx: Context) -> Any:
        assert ctx.topic == IN
        return value

    bench = Bench(lambda s: s.map(careful if with_ctx else plain, name="same"))
    feeder = bench.clients.producer()
    feeder.produce(IN, None, b"k")
    feeder.produce(IN, b'""', b"")
    feeder.produce(IN, b"\xff\x00", None, [BYTES_MARK])
    task = bench.sync_task()
    task.accept(bench.came())
    task.settled()
    sent = bench.produced()
    assert [(each.key(), each.value()) for each in sent] == [(b"k", None), (b"", b'""'), (None, b"\xff\x00")]
    assert (sent[2].headers() or [])[-1] == BYTES_MARK
    assert bench.dead() == []


def test_a_step_that_gives_none_writes_kafkas_null() -> None:
    bench = Bench(lambda s: s.map(lambda _: None, name="nothing"))
    task = bench.sync_task()
    task.accept(bench.feed(1))
    task.settled()
    assert [sent.value() for sent in bench.produced()] == [None]


def test_a_full_producer_queue_is_waited_for_and_nothing_is_lost() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"), queue_limit=3)
    task = bench.sync_task()
    task.accept(bench.feed(*range(50)))
    assert task.settled() == {at(): 50}
    assert bench.out() == list(range(50))


def test_the_end_of_a_log_that_holds_only_gaps_is_settled() -> None:
    task = Bench(lambda s: s.map(str, name="text")).sync_task()
    task.assigned({at(): Commit(None)})
    task.reached_end({at(): 9})
    assert task.settled() == {at(): 9}
    task.reached_end({at(): 4})
    assert task.settled() == {at(): 9}


# ------------------------------------------------------------------------------------ failing records


@pytest.mark.parametrize("with_ctx", [False, True])
def test_only_the_bad_record_dies_and_the_rest_goes_on(with_ctx: bool) -> None:
    function: Any = refuse(2)
    if with_ctx:
        inner = function

        def function(value: int, ctx: Context) -> int:
            return int(inner(value))

    bench = Bench(lambda s: s.map(function, name="check"))
    task = bench.sync_task()
    task.accept(bench.feed(1, 2, 3))
    assert task.settled() == {at(): 3}
    assert bench.out() == [1, 3]
    assert bench.dead_offsets() == [1]
    counters = task.steps[0].counters
    assert (counters.read, counters.written, counters.dead) == (3, 2, 1)


def test_skipped_records_are_counted_and_leave_no_letter(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(lambda s: s.map(refuse(2), name="check", on_error="skip"))
    task = bench.sync_task()
    task.accept(bench.feed(1, 2, 3))
    assert task.settled() == {at(): 3}
    assert (bench.out(), bench.dead()) == ([1, 3], [])
    assert task.steps[0].counters.skipped == 1
    assert "skipped in-0@1 after 1 try:" in caplog.text


def test_a_step_that_says_fail_stops_the_stage_with_the_record_uncommitted() -> None:
    bench = Bench(lambda s: s.map(refuse(2), name="check", on_error="fail"))
    task = bench.sync_task()
    with pytest.raises(StageStopped, match=r"ValueError: 2; the step says on_error: fail") as caught:
        task.accept(bench.feed(1, 2, 3))
    assert caught.value.where == 't step "check" at in-0@1'
    assert task.settled() == {at(): 1}
    assert (bench.out(), bench.dead()) == ([1], [])


def test_an_error_that_every_record_would_meet_stops_the_stage_instead_of_killing_records() -> None:
    bench = Bench(lambda s: s.map(refuse(2, error=lambda _: NotFound("no collection 'x'")), name="check"))
    task = bench.sync_task()
    with pytest.raises(NotFound, match="no collection"):
        task.accept(bench.feed(1, 2, 3))
    assert task.settled() == {at(): 1}
    assert bench.dead() == []


def test_a_transient_failure_waits_in_the_retry_topic_and_keeps_the_order_of_its_key() -> None:
    bench = Bench(lambda s: s.map(flaky(2, ConnectionError("reset")), name="call", retry=OFTEN))
    actor = bench.actor()
    before = bench.clock.monotonic()
    bench.feed(1, 2, keys=[b"k", b"k"])
    while len(bench.out()) < 2 and bench.clock.monotonic() - before < 10:
        actor.step(0)
        bench.run(0.02)
    assert bench.out() == [1, 2]
    assert actor.task.steps[0].counters.retried == 4
    assert bench.clock.monotonic() - before >= 2 * (0.1 + 0.2)


def test_records_of_other_keys_do_not_wait_for_one_that_is_tried_again() -> None:
    bench = Bench(lambda s: s.map(refuse(1, error=lambda _: ConnectionError("reset")), name="call", retry=OFTEN))
    task = bench.sync_task()
    task.accept(bench.feed(1, 2, 3, keys=[b"a", b"b", b"c"]))
    assert bench.out() == [2, 3]
    assert task.settled() == {at(): 3}


def test_a_record_whose_tries_are_used_up_dies_with_their_number() -> None:
    bench = Bench(lambda s: s.map(flaky(9, TransientFailure("busy")), name="call", retry=OFTEN))
    actor = bench.actor()
    bench.feed(1)
    for _ in range(100):
        actor.step(0)
        bench.run(0.05)
    assert text(bench.dead()[0])["sage.attempts"] == "3"
    assert bench.dead_offsets() == [0]


def test_a_partition_whose_order_counts_waits_for_its_record_and_a_stop_leaves_it_uncommitted() -> None:
    bench = Bench(lambda s: s.map(flaky(99, ConnectionError("down")), name="call", ordering="partition"))
    actor = bench.actor()
    bench.feed(1, 2)
    for _ in range(5):
        actor.step(0)
        bench.run(0.01)
    actor.stop(1.0)
    actor.run(lambda _: None)
    assert bench.clients.committed("t.call").get(at(), 0) == 0
    assert (bench.out(), bench.dead()) == ([], [])


def test_a_function_that_failed_for_good_is_not_called_again() -> None:
    calls: list[int] = []

    def once(value: int) -> Any:
        calls.append(value)
        return orjson.loads(b"{broken")

    bench = Bench(lambda s: s.map(once, name="parse"))
    bench.sync_task().accept(bench.feed(7))
    assert calls == [7]
    assert bench.dead_offsets() == [0]


def test_the_failing_step_of_a_fused_chain_is_named() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="first").map(lambda v: 1 / v, name="second"))
    assert len(bench.setting.steps) == 2
    task = bench.sync_task()
    task.accept(bench.feed(0))
    assert text(bench.dead()[0])["__connect.errors.stage"] == "second"
    first, second = (step.counters for step in task.steps)
    assert (first.read, second.read, first.dead, second.dead) == (1, 1, 0, 1)


# ----------------------------------------------------------------------------------- refused outputs


def test_an_output_over_the_limit_kills_its_record() -> None:
    bench = Bench(lambda s: s.map(lambda v: "x" * v, name="grow"), message_max_bytes=20_000)
    task = bench.sync_task()
    task.accept(bench.feed(10, 50_000, 20))
    assert task.settled() == {at(): 3}
    assert [len(value) for value in bench.out()] == [10, 20]
    assert bench.dead_offsets() == [1]
    assert text(bench.dead()[0])["__connect.errors.exception.class.name"] == "sage.errors.RecordTooLarge"


def test_a_letter_that_barely_fits_loses_its_trace() -> None:
    bench = Bench(
        lambda s: s.map(refuse("long", error=lambda _: ValueError("x" * 3_000)), name="grow"), message_max_bytes=4_000
    )
    task = bench.sync_task()
    task.accept(bench.feed("long"))
    assert task.settled() == {at(): 1}
    assert text(bench.dead()[0])["__connect.errors.exception.stacktrace"] == "(cut)"


def test_a_letter_that_cannot_be_written_stops_the_stage_and_is_not_lost() -> None:
    bench = Bench(lambda s: s.map(lambda v: 1 / 0, name="grow"), message_max_bytes=700)
    task = bench.sync_task()
    messages = bench.feed("x" * 500)
    with pytest.raises(StageStopped, match=r"a dead letter does not fit t\.dlq"):
        task.accept(messages)
    assert task.settled().get(at(), 0) == 0


def test_a_retriable_refusal_makes_the_stage_read_again_from_what_is_settled() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"))
    task = bench.sync_task()
    task.accept(bench.feed(1))
    assert task.settled() == {at(): 1}
    bench.clients.fail_next_delivery("t.same")
    bench.feed(2, 3)
    task.accept(bench.came(1))
    assert task.settled() == {}
    assert task.rewinds() == {at(): 1}
    assert letting_through(task, bench, start=1) == {at(): 3}
    assert sorted(set(bench.out())) == [1, 2, 3]


def test_what_was_fetched_before_the_seek_is_not_run() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"))
    task = bench.sync_task()
    messages = bench.feed(1, 2, 3)
    bench.clients.fail_next_delivery("t.same")
    task.accept(messages[:2])
    task.settled()
    produced = len(bench.out())
    task.accept(messages[2:])
    assert len(bench.out()) == produced
    assert task.settled() == {at(): 0} or task.settled() == {}
    task.rewound([at()])
    task.accept(messages)
    assert task.settled() == {at(): 3}


@pytest.mark.parametrize("goes_back", ["held", "refused"])
def test_an_end_that_was_met_before_a_partition_went_back_moves_nothing(
    goes_back: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's end is met while records that were fetched before it still wait for their turn."""
    monkeypatch.setattr(sync_task, "TURN_LIMIT", -1.0)  # one record a turn
    bad = {"a1"} if goes_back == "held" else set()
    bench = Bench(
        lambda s: s.filter(refuse(*bad, error=ConnectionError), name="work", ordering="partition", retry=OFTEN),
        partitions=2,
    )
    bench.feed("a1", "a2", partition=0)
    a1, a2, *others = bench.feed("b1", "b2", "b3", partition=1)
    task = bench.sync_task()
    if goes_back == "held":
        task.accept([others[0], a1, a2, *others[1:]])
        task.reached_end({at(0): 2, at(1): 3})
        task.accept([])  # a1 is to be tried again in its place
    else:
        bench.clients.fail_next_delivery("t.work")
        task.accept([a1, a2, *others])
        task.reached_end({at(0): 2, at(1): 3})
        task.settled()
        assert task.rewinds() == {at(0): 0}
        task.rewound([at(0)])
    assert not task.idle()
    while not task.idle():
        task.accept([])
    assert task.settled() == {at(0): 0, at(1): 3} or task.settled() == {at(1): 3}
    assert [value for value in bench.out() if value.startswith("a")] == []


def test_a_refusal_by_size_names_the_record_whose_output_it_was() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"))
    task = bench.sync_task()
    bench.feed(1, 2, 3)
    bench.clients.fail_next_delivery("t.same", reason="MSG_SIZE_TOO_LARGE", too_large=True, retriable=False)
    task.accept(bench.came())
    assert task.settled() == {}
    bench.clients.fail_next_delivery("t.same", reason="MSG_SIZE_TOO_LARGE", too_large=True, retriable=False)
    assert letting_through(task, bench) == {at(): 3}
    assert bench.dead_offsets() == [0]
    assert "MSG_SIZE_TOO_LARGE" in text(bench.dead()[0])["__connect.errors.exception.message"]


def test_a_refusal_that_nothing_can_mend_stops_the_stage() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"))
    task = bench.sync_task()
    bench.clients.fail_next_delivery("t.same", reason="TOPIC_AUTHORIZATION_FAILED", retriable=False)
    task.accept(bench.feed(1))
    with pytest.raises(StageStopped, match=r"t\.same-0 did not take a record: TOPIC_AUTHORIZATION_FAILED"):
        task.settled()


def test_a_refused_dead_letter_is_written_again_or_stops_the_stage() -> None:
    bench = Bench(lambda s: s.map(refuse(1), name="check"))
    task = bench.sync_task()
    bench.feed(1, 2)
    bench.clients.fail_next_delivery("t.dlq")
    assert letting_through(task, bench) == {at(): 2}
    assert set(bench.dead_offsets()) == {0}
    for _ in range(10):  # with its stack trace and without
        bench.clients.fail_next_delivery("t.dlq", too_large=True, retriable=False)
    bench.feed(1)
    with pytest.raises(StageStopped, match=r"t\.dlq-0 did not take a record"):
        letting_through(task, bench, start=2)


def test_a_broker_that_does_not_answer_settles_nothing() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"))
    bench.producer.flush = lambda timeout: 1  # type: ignore[method-assign]  # as after a time-out
    task = bench.sync_task()
    task.accept(bench.feed(1, 2))
    assert task.settled() == {}
    assert task.rewinds() == {}


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=6),
)
def test_whatever_is_refused_every_record_ends_as_an_output_or_a_letter(
    values: list[int], refusals: list[tuple[bool, int]]
) -> None:
    bench = Bench(lambda s: s.map(refuse(0), name="check"))
    task = bench.sync_task()
    bench.feed(*values)
    for too_large, _ in refusals:
        bench.clients.fail_next_delivery("t.check", too_large=too_large, retriable=not too_large)
    assert letting_through(task, bench) == {at(): len(values)}
    settled_as_output = {text(sent)[SAGE_ID] for sent in bench.produced()}
    root = bench.setting.topic_ids[IN]
    as_output = {offset for offset in range(len(values)) if topic_root(root, 0, offset) in settled_as_output}
    assert as_output | set(bench.dead_offsets()) == set(range(len(values)))
    assert all(values[offset] != 0 for offset in as_output)


# -------------------------------------------------------------------------------------- assignments


def test_a_revoked_partition_gives_what_is_settled_and_the_others_stay() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"), partitions=2)
    task = bench.sync_task()
    bench.feed(1, 2, partition=0)
    task.accept(bench.feed(3, partition=1))
    assert revoked(task, [at(0)], 1.0) == {at(0): 2}
    assert task.settled() == {at(1): 1}


def test_a_lost_partition_is_forgotten() -> None:
    bench = Bench(lambda s: s.map(lambda v: v, name="same"))
    task = bench.sync_task()
    task.accept(bench.feed(1, 2))
    task.lost([at()])
    assert task.settled() == {}
    task.assigned({at(): Commit(None)})
    task.accept(bench.came()[:1])
    assert task.settled() == {at(): 1}


def test_closing_closes_every_step_and_then_says_what_failed() -> None:
    closed: list[str] = []

    class First(Operator[int, int]):
        def process(self, value: int, ctx: Context) -> int:
            return value

        async def close(self) -> None:
            closed.append("first")
            raise RuntimeError("first")

    class Second(First):
        async def close(self) -> None:
            closed.append("second")
            raise RuntimeError("second")

    task = Bench(lambda s: s.map(First, name="first").map(Second, name="second")).sync_task()
    with pytest.raises(RuntimeError, match="first"):
        task.close()
    assert closed == ["first", "second"]
