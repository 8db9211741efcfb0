"""Which offset may be committed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sage.runtime.concurrent.tracker import OffsetTracker, Pending


def test_nothing_is_committable_before_anything_was_seen() -> None:
    assert OffsetTracker().committable is None


def test_the_first_record_under_way_holds_the_offset() -> None:
    tracker = OffsetTracker()
    first, second, third = (tracker.add(offset) for offset in (5, 6, 7))
    tracker.done(second)
    assert tracker.committable == 5
    tracker.done(first)
    assert tracker.committable == 7
    tracker.done(third)
    assert tracker.committable == 8


def test_a_record_done_twice_counts_once() -> None:
    tracker = OffsetTracker()
    first, second = tracker.add(0), tracker.add(1)
    tracker.done(first)
    tracker.done(first)
    assert tracker.committable == 1
    assert len(tracker) == 1
    tracker.done(second)
    tracker.done(first)
    assert tracker.committable == 2
    assert len(tracker) == 0


def test_gaps_in_the_log_are_crossed() -> None:
    tracker = OffsetTracker()
    tracker.done(tracker.add(3))
    late = tracker.add(10)
    assert tracker.committable == 10
    tracker.done(late)
    assert tracker.committable == 11


def test_the_end_of_the_log_moves_the_frontier_but_not_past_work() -> None:
    tracker = OffsetTracker()
    pending = tracker.add(4)
    tracker.reached_end(9)
    assert tracker.committable == 4
    tracker.done(pending)
    assert tracker.committable == 9
    tracker.reached_end(7)
    assert tracker.committable == 9


def test_a_partition_of_markers_alone_gets_its_end() -> None:
    tracker = OffsetTracker()
    tracker.reached_end(6)
    assert tracker.committable == 6


def test_an_offset_that_goes_back_is_refused() -> None:
    tracker = OffsetTracker()
    tracker.add(5)
    with pytest.raises(ValueError, match="offset 5 after 5"):
        tracker.add(5)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_the_end_is_reached_in_whatever_order_records_finish(gaps: list[int], random: object) -> None:
    tracker, offset, pending = OffsetTracker(), 0, []
    for gap in gaps:
        offset += gap
        pending.append(tracker.add(offset))
    unfinished = {each.offset for each in pending}
    random.shuffle(pending)  # type: ignore[attr-defined]
    for each in pending:
        tracker.done(each)
        unfinished.discard(each.offset)
        assert tracker.committable == (min(unfinished) if unfinished else offset + 1)
    assert len(tracker) == 0


class TrackerMachine(RuleBasedStateMachine):
    """The committable offset never passes an unfinished record and never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.next = 0
        self.under_way: list[Pending] = []
        self.last = -1

    @rule(gap=st.integers(0, 3))
    def take_on(self, gap: int) -> None:
        self.next += gap
        self.under_way.append(self.tracker.add(self.next))
        self.next += 1

    @rule(place=st.integers(0, 50))
    def finish(self, place: int) -> None:
        if self.under_way:
            self.tracker.done(self.under_way.pop(place % len(self.under_way)))

    @rule(gap=st.integers(0, 3))
    def reach_end(self, gap: int) -> None:
        self.next += gap
        self.tracker.reached_end(self.next)

    @invariant()
    def never_past_work_and_never_back(self) -> None:
        committable = self.tracker.committable
        if committable is None:
            assert not self.under_way
            return
        assert all(committable <= pending.offset for pending in self.under_way)
        assert self.under_way or committable == self.next
        assert committable >= self.last
        self.last = committable


TestTrackerMachine = TrackerMachine.TestCase
TestTrackerMachine.settings = settings(max_examples=50, stateful_step_count=40)
