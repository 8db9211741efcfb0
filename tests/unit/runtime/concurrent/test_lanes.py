"""Lanes: who may run next."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from sage.model.partition import TopicPartition
from sage.runtime.concurrent.flight import Flight
from sage.runtime.concurrent.lanes import Lanes
from sage.runtime.concurrent.partition_state import PartitionState
from tests.unit.runtime.messages import message


class Feed:
    """Makes flights of partitions that keep their state."""

    def __init__(self) -> None:
        self._homes: dict[int, PartitionState] = {}
        self._offsets: dict[int, int] = defaultdict(int)

    def flight(self, key: bytes | None, partition: int = 0) -> Flight:
        home = self._homes.setdefault(partition, PartitionState(TopicPartition("t.in", partition)))
        offset = self._offsets[partition]
        self._offsets[partition] += 1
        came = message(1, offset=offset, key=key, partition=partition)
        return Flight(came, home, home.tracker.add(offset), f"{partition}:{offset}", 1, offset)


def places(flights: list[Flight]) -> list[str]:
    return [flight.record_id for flight in flights]


def filled(ordering: str, *keys: bytes | None) -> Lanes:
    lanes, feed = Lanes(ordering), Feed()
    for key in keys:
        lanes.add(feed.flight(key))
    return lanes


def test_a_busy_key_waits_and_other_keys_run() -> None:
    lanes = filled("key", b"a", b"a", b"b")
    (first,) = lanes.take(1)
    (other,) = lanes.take(1)
    assert places([first, other]) == ["0:0", "0:2"]
    assert lanes.take(1) == []
    assert not lanes.ready
    assert first.lane is not None
    lanes.release(first.lane)
    assert places(lanes.take(1)) == ["0:1"]


def test_records_without_a_key_wait_for_nobody() -> None:
    lanes = filled("key", None, None, None)
    assert [places(lanes.take(1)) for _ in range(3)] == [["0:0"], ["0:1"], ["0:2"]]


def test_a_partition_is_one_lane_when_the_order_is_the_partitions() -> None:
    lanes = filled("partition", b"a", b"b", None)
    (first,) = lanes.take(1)
    assert lanes.take(5) == []
    assert first.lane is not None
    lanes.release(first.lane)
    assert places(lanes.take(5)) == ["0:1", "0:2"]


def test_without_an_order_all_run_at_once() -> None:
    assert places(filled("none", b"a", b"a", None).take(10)) == ["0:0", "0:1", "0:2"]


def test_a_batch_takes_several_records_of_a_key_in_order() -> None:
    lanes = filled("key", b"a", b"b", b"a", b"a")
    assert places(lanes.take(3)) == ["0:0", "0:2", "0:3"]
    assert places(lanes.take(3)) == ["0:1"]


def test_partitions_take_turns() -> None:
    lanes, feed = Lanes("key"), Feed()
    for number in range(6):
        lanes.add(feed.flight(b"%d" % number, 0))
    lanes.add(feed.flight(b"x", 1))
    assert "1:0" in places(lanes.take(1) + lanes.take(1))


def test_records_put_back_come_before_all_others_of_their_key() -> None:
    lanes = filled("key", b"a", b"a", b"a")
    first, second = lanes.take(2)
    lanes.put_back([first, second])
    assert lanes.waiting == 3
    assert lanes.take(1) == []  # the lane is busy until it is released
    assert first.lane is not None
    lanes.release(first.lane)
    assert places(lanes.take(5)) == ["0:0", "0:1", "0:2"]


def test_a_record_to_be_tried_alone_shares_no_batch() -> None:
    lanes = filled("key", b"a", b"b", b"c")
    taken = lanes.take(2)
    for flight in taken:
        flight.alone = True
    lanes.put_back(taken)
    for flight in taken:
        assert flight.lane is not None
        lanes.release(flight.lane)
    batches = [places(lanes.take(10)) for _ in range(3)]
    assert sorted(batches) == [["0:0"], ["0:1"], ["0:2"]]
    assert lanes.waiting == 0


def test_what_waits_in_a_partition_is_forgotten_and_the_others_stay() -> None:
    lanes, feed = Lanes("key"), Feed()
    for partition in (0, 1):
        for key in (b"a", b"a", None):
            lanes.add(feed.flight(key, partition))
    (working,) = lanes.take(1)
    assert working.record_id == "0:0"
    lanes.forget(TopicPartition("t.in", 0))
    assert lanes.waiting == 3
    assert working.lane is not None
    lanes.release(working.lane)
    assert places(lanes.take(9)) == ["1:0", "1:1", "1:2"]
    assert lanes.waiting == 0


def test_a_lane_that_ran_empty_leaves_nothing_behind() -> None:
    lanes, feed = Lanes("key"), Feed()
    for round_ in range(3):
        lanes.add(feed.flight(b"a"))
        (flight,) = lanes.take(1)
        assert flight.record_id == f"0:{round_}"
        assert flight.lane is not None
        lanes.release(flight.lane)
    assert not lanes.ready
    assert lanes.waiting == 0


KEYS = st.sampled_from([b"a", b"b", b"c", None])


@given(
    st.lists(st.tuples(KEYS, st.integers(0, 2)), max_size=40),
    st.integers(1, 5),
    st.sampled_from(["key", "partition", "none"]),
    st.randoms(use_true_random=False),
)
def test_everything_runs_once_and_a_keys_records_never_overlap_or_overtake(
    records: list[tuple[bytes | None, int]], batch: int, ordering: str, random: object
) -> None:
    lanes, feed = Lanes(ordering), Feed()
    added = [feed.flight(key, partition) for key, partition in records]
    waiting_to_add = list(added)
    at_work: list[list[Flight]] = []
    order: list[Flight] = []
    while waiting_to_add or at_work or lanes.ready:
        choice = random.random()  # type: ignore[attr-defined]
        if waiting_to_add and choice < 0.4:
            lanes.add(waiting_to_add.pop(0))
        elif lanes.ready and choice < 0.8:
            taken = lanes.take(batch)
            assert 0 < len(taken) <= batch
            assert not {flight.lane for flight in taken} & {flight.lane for turn in at_work for flight in turn}
            at_work.append(taken)
            order += taken
        elif at_work:
            turn = at_work.pop(random.randrange(len(at_work)))  # type: ignore[attr-defined]
            if random.random() < 0.2 and not any(flight.attempts for flight in turn):  # type: ignore[attr-defined]
                for flight in turn:
                    flight.attempts += 1
                    order.remove(flight)
                lanes.put_back(turn)
            for lane in dict.fromkeys(flight.lane for flight in turn):
                assert lane is not None
                lanes.release(lane)
    assert sorted(map(id, order)) == sorted(map(id, added))
    assert lanes.waiting == 0
    if ordering == "none":
        return
    lines: dict[object, list[str]] = defaultdict(list)
    wanted: dict[object, list[str]] = defaultdict(list)
    for result, flights in ((lines, order), (wanted, added)):
        for flight in flights:
            key = flight.lane_key(ordering)
            if key is not None:
                result[flight.home.partition, key].append(flight.record_id)
    assert lines == wanted
