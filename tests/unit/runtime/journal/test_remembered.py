"""What a journal has in memory: nothing that may be asked for is forgotten, and nothing else is kept for long."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sage.model.partition import TopicPartition
from sage.runtime.journal.entry import CallKey, Place, Stored
from sage.runtime.journal.remembered import UNCOMMITTABLE_KEPT, Remembered, Result

MEMORY, RECENT = 40, 64
TOPICS = ("in", "other", "t.step.retry")


def key(record_id: str, occurrence: int = 0) -> CallKey:
    return CallKey(record_id, "ask", "h", occurrence)


@dataclass(eq=False)
class Call:
    """A result: ``first`` and ``last`` once the broker has it, ``told`` once we know."""

    key: CallKey
    data: bytes
    result: Result
    first: int = -1
    last: int = -1
    told: bool = False


@dataclass(eq=False)
class Taken:
    """A record that was taken on."""

    place: Place
    calls: list[Call] = field(default_factory=list)
    finished: bool = False

    @property
    def id(self) -> str:
        return f"{self.place.topic}:{self.place.offset}"


class JournalInMemory(RuleBasedStateMachine):
    """Records of three topics that share a partition, in any interleaving of calls, acknowledgements and commits."""

    def __init__(self) -> None:
        super().__init__()
        self.remembered = Remembered(lambda: 0.0, memory=MEMORY, recent=RECENT)
        self.taken: dict[str, list[Taken]] = {topic: [] for topic in TOPICS}
        self.committed: dict[str, int] = dict.fromkeys(TOPICS, 0)
        self.end = self.known = 0
        self.mark = 0

    @initialize(end=st.integers(0, 3))
    def start(self, end: int) -> None:
        self.remembered.start(0, end)
        self.end = self.known = self.mark = end

    def uncommitted(self) -> list[Taken]:
        return [record for topic in TOPICS for record in self.taken[topic][self.committed[topic] :]]

    def calls(self) -> list[Call]:
        return [call for records in self.taken.values() for record in records for call in record.calls]

    @rule(topic=st.sampled_from(TOPICS))
    def take(self, topic: str) -> None:
        self.taken[topic].append(Taken(Place(topic, 0, len(self.taken[topic]))))

    @precondition(lambda self: any(not record.finished for record in self.uncommitted()))
    @rule(data=st.data(), size=st.integers(0, 25))
    def call(self, data: st.DataObject, size: int) -> None:
        record = data.draw(st.sampled_from([each for each in self.uncommitted() if not each.finished]))
        own = key(record.id, len(record.calls))
        assert self.remembered.find(0, own) is None
        answer = bytes([len(record.calls)]) * size
        record.calls.append(Call(own, answer, self.remembered.begin(0, own, record.place, answer)))

    @precondition(lambda self: any(call.first < 0 for call in self.calls()))
    @rule(data=st.data(), chunks=st.integers(1, 3), others=st.integers(0, 2))
    def arrive(self, data: st.DataObject, chunks: int, others: int) -> None:
        """The broker has it, behind records of a predecessor that is not quite dead."""
        call = data.draw(st.sampled_from([each for each in self.calls() if each.first < 0]))
        call.first = self.end + others
        call.last = call.first + chunks - 1
        self.end = call.last + 1

    @precondition(lambda self: any(call.first >= 0 and not call.told for call in self.calls()))
    @rule(data=st.data())
    def tell(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([each for each in self.calls() if each.first >= 0 and not each.told]))
        self.remembered.written(0, call.result, call.first, call.last)
        call.told = True
        self.known = max(self.known, call.last + 1)

    @precondition(lambda self: any(not record.finished for record in self.uncommitted()))
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        record = data.draw(st.sampled_from([each for each in self.uncommitted() if not each.finished]))
        record.finished = True
        self.remembered.finished(record.id, TopicPartition(record.place.topic, 0), record.place.offset)

    @rule(topic=st.sampled_from(TOPICS))
    def commit(self, topic: str) -> None:
        """The contiguous finished prefix."""
        waiting = self.taken[topic][self.committed[topic] :]
        prefix = next((at for at, record in enumerate(waiting) if not record.finished), len(waiting))
        self.committed[topic] += prefix
        self.remembered.committed(TopicPartition(topic, 0), self.committed[topic])

    @invariant()
    def whatever_may_be_asked_for_is_found(self) -> None:
        for record in self.uncommitted():
            for call in record.calls:
                found = self.remembered.find(0, call.key)
                assert found is not None
                if found.data is None:  # only the topic has it
                    assert (found.first, found.last) == (call.first, call.last)
                    assert call.told
                else:
                    assert found.data == call.data

    @invariant()
    def a_successor_that_reads_from_the_low_mark_finds_it_too(self) -> None:
        mark = self.remembered.low_mark(0)
        assert mark is not None
        for record in self.uncommitted():
            for call in record.calls:
                assert mark <= (call.first if call.first >= 0 else self.end)
        assert self.mark <= mark <= self.end
        self.mark = mark

    @invariant()
    def memory_is_bounded(self) -> None:
        told = sum(len(call.data) for record in self.uncommitted() for call in record.calls if call.told)
        assert 0 <= self.remembered.bytes_at_hand <= min(MEMORY, told)
        assert 0 <= self.remembered.recent_bytes <= RECENT

    @invariant()
    def where_nothing_is_needed_the_mark_is_the_end(self) -> None:
        if not any(record.calls for record in self.uncommitted()):
            assert self.remembered.low_mark(0) == self.known


TestJournalInMemory = JournalInMemory.TestCase
TestJournalInMemory.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def stored(record_id: str, offset: int, data: bytes = b"x", place: Place | None = None) -> Stored:
    return Stored(key(record_id), place or Place("in", 0, 7), data, offset, offset)


def test_of_two_results_with_one_key_the_first_counts() -> None:
    remembered = Remembered(lambda: 0.0)
    remembered.start(0, 10)
    remembered.inherit(0, stored("r", 3, b"first"))
    remembered.inherit(0, stored("r", 5, b"second"))
    found = remembered.find(0, key("r"))
    assert found is not None
    assert (found.data, remembered.low_mark(0)) == (b"first", 3)


def test_a_double_that_comes_soon_after_the_commit_finds_the_result_and_holds_nothing_back() -> None:
    remembered = Remembered(lambda: 0.0)
    remembered.start(0, 0)
    result = remembered.begin(0, key("r"), Place("in", 0, 4), b"paid")
    remembered.written(0, result, 0, 0)
    remembered.finished("r", TopicPartition("in", 0), 4)
    remembered.committed(TopicPartition("in", 0), 5)
    found = remembered.find(0, key("r"))
    assert found is not None
    assert (found.data, remembered.low_mark(0)) == (b"paid", 1)


def test_two_doubles_at_the_same_time_leave_no_bytes_behind() -> None:
    remembered = Remembered(lambda: 0.0)
    remembered.start(0, 0)
    results = [remembered.begin(0, key("r"), Place("in", 0, offset), b"paid") for offset in (4, 5)]
    for offset, result in enumerate(results):
        remembered.written(0, result, offset, offset)
    assert remembered.bytes_at_hand == 4
    remembered.forget(0)
    assert remembered.bytes_at_hand == 0


def test_a_timers_results_are_kept_until_nobody_has_asked_for_a_while() -> None:
    now = [0.0]
    remembered = Remembered(lambda: now[0])
    remembered.start(0, 0)
    remembered.written(0, remembered.begin(0, key("timer"), None, b"paid"), 0, 0)
    now[0] = UNCOMMITTABLE_KEPT - 1
    assert remembered.find(0, key("timer")) is not None
    now[0] += UNCOMMITTABLE_KEPT - 1
    assert remembered.low_mark(0) == 0
    now[0] += 1
    assert remembered.low_mark(0) == 1


def test_a_partition_that_went_holds_the_mark_of_one_that_stays_only_for_a_while() -> None:
    now = [0.0]
    remembered = Remembered(lambda: now[0])
    remembered.start(0, 0)
    for offset, topic in enumerate(("in", "other")):
        result = remembered.begin(0, key(topic), Place(topic, 0, 9), b"paid")
        remembered.written(0, result, offset, offset)
    remembered.leave(TopicPartition("in", 0))
    assert remembered.find(0, key("other")) is not None
    assert remembered.low_mark(0) == 0
    now[0] = UNCOMMITTABLE_KEPT
    assert remembered.low_mark(0) == 1


def test_a_partition_that_went_gives_all_of_its_bytes_back() -> None:
    remembered = Remembered(lambda: 0.0)
    remembered.start(0, 0)
    remembered.inherit(0, stored("r", 3, b"inherited"))
    late = remembered.begin(0, key("late"), Place("in", 0, 8), b"still on its way")
    remembered.forget(0)
    remembered.written(0, late, 5, 5)
    assert not remembered.has(0)
    assert remembered.find(0, key("r")) is None
    assert remembered.low_mark(0) is None
    assert (remembered.bytes_at_hand, remembered.recent_bytes) == (0, 0)
