"""What a successor takes over from a journal: what may be asked for again, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from sage.errors import NotFound
from sage.model.partition import TopicPartition
from sage.ports import Commit
from sage.runtime.actors.commit_text import CommitText, JournalMark
from sage.runtime.journal.entry import CallKey, Place, chunks
from sage.runtime.journal.reader import Left, read_again, read_left
from sage.runtime.retries.parking import parked
from sage.spec.context import Context
from sage.testing.broker import InMemoryMessage
from tests.unit.runtime.actors.test_takeover import Nobody
from tests.unit.runtime.bench import Bench

JOURNAL, RETRY = TopicPartition("t.work.journal", 0), TopicPartition("t.work.retry", 0)
IN = TopicPartition("in", 0)


async def ask(value: Any, ctx: Context) -> Any:
    return await ctx.call("ask", _answer, value)


async def _answer(value: Any) -> Any:
    return value


class World(Bench):
    """A stage with a journal, whose predecessor has left something."""

    def __init__(self) -> None:
        super().__init__(lambda s: s.map(ask, name="work"))

    def journaled(self, name: str, place: Place | None, data: bytes = b"paid", *, size: int = 100, cut: int = 0) -> int:
        """A result in the journal, without its last ``cut`` records; where it begins."""
        (begin,) = self.clients.admin().end_offsets([JOURNAL]).values()
        records = list(chunks(CallKey(name, "ask", "h", 0), place, data, size=size))
        for value, headers in records[: len(records) - cut]:
            self._feeder.produce(JOURNAL.topic, value, name.encode(), headers, partition=0)
        self._feeder.flush(0)
        return begin

    def park(self, place: Place) -> None:
        """A record that waits in the retry topic."""
        record = InMemoryMessage(place.topic, place.partition, place.offset, value=b"1", key=b"k")
        waits = parked(record, RETRY.topic, 0, attempts=1)
        self._feeder.produce(waits.topic, waits.value, waits.key, waits.headers, partition=0)
        self._feeder.flush(0)

    def commit(self, at: TopicPartition, offset: int, journal: int | None = None) -> None:
        member = self.clients.consumer("t.work")
        member.subscribe([at.topic], Nobody())
        member.poll(1, 0)
        member.commit({at: offset}, {at: CommitText("", None if journal is None else JournalMark(journal)).encode()})
        member.close()

    def left(self, given: dict[TopicPartition, Commit] | None = None, **options: Any) -> Left:
        return read_left(self.setting, self.clients, 0, given or {}, **options)


@pytest.fixture
def world() -> World:
    return World()


def names(left: Left) -> Sequence[str]:
    return [stored.key.record_id for stored in left.results]


def test_an_empty_journal_leaves_nothing(world: World) -> None:
    assert world.left() == Left([], 0)


def test_only_what_is_not_committed_is_taken_over(world: World) -> None:
    for offset in range(4):
        world.journaled(f"r{offset}", Place("in", 0, offset))
    world.commit(IN, 2)
    left = world.left()
    assert (names(left), left.end) == (["r2", "r3"], 4)


def test_before_the_first_commit_all_may_be_asked_for(world: World) -> None:
    world.journaled("r0", Place("in", 0, 0))
    assert names(world.left()) == ["r0"]


def test_it_is_read_from_the_mark_beside_the_offsets(world: World) -> None:
    for offset in range(4):
        world.journaled(f"r{offset}", Place("in", 0, offset))
    world.commit(IN, 0, journal=3)
    assert names(world.left()) == ["r3"]


def test_a_mark_at_the_end_leaves_nothing_to_read(world: World) -> None:
    world.journaled("r0", Place("in", 0, 9))
    world.commit(IN, 0, journal=1)
    assert world.left() == Left([], 1)


def test_what_was_trimmed_below_the_mark_is_not_waited_for(world: World) -> None:
    for offset in range(4):
        world.journaled(f"r{offset}", Place("in", 0, offset))
    world.clients.trim({JOURNAL: 2})
    assert names(world.left()) == ["r2", "r3"]


def test_commits_that_the_caller_knows_to_be_stable_win(world: World) -> None:
    for offset in range(4):
        world.journaled(f"r{offset}", Place("in", 0, offset))
    world.commit(IN, 1)
    assert names(world.left({IN: Commit(3, "")})) == ["r3"]


def test_a_record_that_waits_in_the_retry_topic_keeps_its_results(world: World) -> None:
    for offset in range(3):
        world.journaled(f"r{offset}", Place("in", 0, offset))
    world.park(Place("in", 0, 0))
    world.park(Place("in", 0, 1))
    world.commit(IN, 3)
    world.commit(RETRY, 1)  # the first of them is through
    assert names(world.left()) == ["r1"]


def test_a_timers_results_are_taken_over(world: World) -> None:
    world.journaled("timer", None)
    world.commit(IN, 3)
    assert names(world.left()) == ["timer"]


@pytest.mark.parametrize("place", [Place("gone", 0, 8), Place("in", 3, 8)])
def test_what_the_stage_does_not_read_any_more_is_left_where_it_is(world: World, place: Place) -> None:
    world.journaled("r", place)
    assert names(world.left()) == []


def test_a_sequence_that_a_crash_cut_off_is_no_result_and_hides_none(world: World) -> None:
    world.journaled("r0", Place("in", 0, 0), b"x" * 250, cut=1)
    begin = world.journaled("r0", Place("in", 0, 0), b"y" * 250)
    (stored,) = world.left().results
    assert (stored.data, stored.first, stored.last) == (b"y" * 250, begin, begin + 2)


def test_beyond_the_memory_only_the_place_comes_along_and_the_result_is_read_again(world: World) -> None:
    for offset in range(3):
        world.journaled(f"r{offset}", Place("in", 0, offset), b"%d" % offset * 40)
    first, second, third = world.left(memory=50).results
    assert (first.data, second.data, third.data) == (b"0" * 40, None, None)
    assert read_again(world.clients, JOURNAL, second.key, second.first, second.last) == b"1" * 40


def test_a_result_that_is_gone_from_the_topic_is_none(world: World) -> None:
    for offset in range(3):
        world.journaled(f"r{offset}", Place("in", 0, offset))
    first, _, _ = world.left().results
    world.clients.trim({JOURNAL: 2})
    assert read_again(world.clients, JOURNAL, first.key, first.first, first.last) is None


def test_a_journal_that_is_gone_is_said(world: World) -> None:
    world.clients.admin().delete([JOURNAL.topic])
    with pytest.raises(NotFound):
        world.left()
