"""Micro-batches: filled, failed, taken apart, tried again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.errors import StageStopped, TransientFailure
from sage.model.identity import SAGE_ID, topic_root
from sage.spec.component import Operator
from sage.spec.context import Context
from tests.unit.runtime.bench import IN, Bench, at, text


class Batches:
    """A ``map_batches`` function that notes its batches; a negative value is refused, a text fails as told."""

    def __init__(self) -> None:
        self.seen: list[list[Any]] = []
        self.failures: list[Exception] = []

    def bench(self, **options: Any) -> Bench:
        def together(values: list[Any]) -> list[Any]:
            self.seen.append(list(values))
            if self.failures:
                raise self.failures.pop(0)
            if any(value < 0 for value in values):
                raise ValueError("negative")
            return [value * 10 for value in values]

        policy = {"max_size": 4, "max_wait": 0.01} | options
        return Bench(lambda s: s.map_batches(together, name="batch", **policy), parks=False)


def test_a_batch_is_filled_or_its_first_record_has_waited_long_enough() -> None:
    batches = Batches()
    bench = batches.bench(max_wait=0.01)
    task = bench.async_task()
    task.accept(bench.feed(1, 2))
    bench.run(0.005)
    assert batches.seen == []
    bench.run(0.01)
    assert batches.seen == [[1, 2]]
    bench.feed(3, 4, 5, 6)
    task.accept(bench.came(2))
    bench.run()
    assert batches.seen == [[1, 2], [3, 4, 5, 6]]
    assert bench.out() == [10, 20, 30, 40, 50, 60]
    assert task.settled() == {at(): 6}


def test_a_failed_batch_costs_only_the_record_that_made_it_fail() -> None:
    batches = Batches()
    bench = batches.bench()
    task = bench.async_task()
    task.accept(bench.feed(1, -2, 3))
    bench.run(1)
    assert batches.seen == [[1, -2, 3], [1], [-2], [3]]
    assert bench.out() == [10, 30]
    assert bench.dead_offsets() == [1]
    assert text(bench.dead()[0])["sage.attempts"] == "1"
    assert task.settled() == {at(): 3}


def test_a_value_that_cannot_be_decoded_leaves_its_batch_alone() -> None:
    batches = Batches()
    bench = batches.bench()
    task = bench.async_task()
    bench.feed(b"1", b"{", b"3", raw=True)
    task.accept(bench.came())
    bench.run(1)
    assert batches.seen == [[1, 3]]
    assert bench.out() == [10, 30]
    assert bench.dead_offsets() == [1]
    assert task.settled() == {at(): 3}


@pytest.mark.parametrize("key", [b"a", None])
def test_a_batch_that_met_a_transient_failure_is_tried_again_after_a_wait_in_order(key: bytes | None) -> None:
    batches = Batches()
    batches.failures = [ConnectionError("reset"), TransientFailure("busy")]
    bench = batches.bench()
    task = bench.async_task()
    task.accept(bench.feed(1, 2, 3, keys=[key] * 3))
    bench.run(0.05)
    assert batches.seen == [[1, 2, 3]]
    bench.run(5)
    assert [value for batch in batches.seen[1:] for value in batch][:3] == [1, 2, 3] or key is None
    assert bench.out() == [10, 20, 30]
    assert task.settled() == {at(): 3}


@pytest.mark.parametrize("keys", [[None] * 4, [b"a"] * 4, [b"a", b"a", b"b", b"b"]])
def test_a_record_on_which_a_service_breaks_down_takes_none_of_its_batch_with_it(keys: list[bytes | None]) -> None:
    """Each try looks like the service's own trouble, as an answer 500 does, and those of the batch are used up."""

    def together(values: list[Any]) -> list[Any]:
        if -2 in values:
            raise TransientFailure("500")
        return [value * 10 for value in values]

    retry: Any = {"attempts": 3}
    bench = Bench(lambda s: s.map_batches(together, name="batch", max_size=4, max_wait=0.01, retry=retry), parks=False)
    task = bench.async_task()
    task.accept(bench.feed(1, -2, 3, 4, keys=keys))
    bench.run(30)
    assert (sorted(bench.out()), bench.dead_offsets()) == ([10, 30, 40], [1])
    assert text(bench.dead()[0])["sage.attempts"] == "3"
    assert task.settled() == {at(): 4}


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.sampled_from([1, 2, -1])), min_size=1, max_size=12),
    st.lists(st.sampled_from(["transient", "dead"]), max_size=6),
    st.integers(1, 5),
)
def test_whatever_happens_to_batches_keys_keep_their_order_and_every_record_ends_once(
    records: list[tuple[bytes, int]], failures: list[str], size: int
) -> None:
    batches = Batches()
    batches.failures = [ConnectionError("x") if kind == "transient" else KeyError("x") for kind in failures]
    bench = batches.bench(max_size=size, concurrency=2)
    task = bench.async_task()
    keys = [key for key, _ in records]
    task.accept(bench.feed(*(value for _, value in records), keys=keys))
    bench.run(600)
    assert task.settled() == {at(): len(records)}
    root = bench.setting.topic_ids[IN]
    ids = {topic_root(root, 0, offset): offset for offset in range(len(records))}
    done = [ids[text(sent)[SAGE_ID]] for sent in bench.produced()]
    dead = bench.dead_offsets()
    assert sorted(done + dead) == list(range(len(records)))
    for key in set(keys):
        own = [offset for offset in done if keys[offset] == key]
        assert own == sorted(own)


def test_a_batch_function_that_gives_too_few_results_stops_the_stage() -> None:
    bench = Bench(lambda s: s.map_batches(lambda values: values[1:], name="batch", max_size=4, max_wait=0))
    task = bench.async_task()
    task.accept(bench.feed(1, 2))
    bench.run(0.1)
    with pytest.raises(StageStopped, match="a batch of 2 values gave 1 results"):
        task.room()


class Embedding(Operator[str, str]):
    """An operator with ``process_batch``, which gets a context for each value."""

    async def process_batch(self, values: Sequence[str], contexts: Sequence[Context]) -> Sequence[str]:
        return [f"{value}@{ctx.offset}" for value, ctx in zip(values, contexts, strict=True)]


def test_an_operators_batch_gets_each_records_own_context() -> None:
    bench = Bench(lambda s: s.map(Embedding, name="embed"))
    task = bench.async_task()
    task.accept(bench.feed("a", "b"))
    bench.run(0.1)
    assert bench.out() == ["a@0", "b@1"]
