"""Lag of groups, and moving where they go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sage.errors import NotFound, SageError
from sage.model.partition import TopicPartition
from sage.operations.group_reset import Reset, Target, execute, plan_reset
from sage.operations.groups import describe_group, list_groups
from sage.ports import Consumer
from sage.testing.broker import InMemoryClients
from tests.support.kafka import Recorder
from tests.unit.operations.conftest import Write

RETRY = "qa.step.retry"


@contextmanager
def member(clients: InMemoryClients, group: str, topic: str) -> Iterator[Consumer]:
    reader = clients.consumer(group)
    reader.subscribe([topic], Recorder())
    while not reader.assignment():
        reader.poll(1, 0.01)
    try:
        yield reader
    finally:
        reader.close()


def committed(clients: InMemoryClients, group: str, *offsets: tuple[str, int, int]) -> None:
    reader = clients.consumer(group)
    wanted = {TopicPartition(topic, partition): offset for topic, partition, offset in offsets}
    reader.assign(wanted)
    reader.commit(wanted)
    reader.close()


@pytest.fixture
def read(clients: InMemoryClients, write: Write) -> InMemoryClients:
    """``qa.step`` has read 3 of 5 and 0 of 2 records, and keeps one for another try."""
    write("qa.in", [b"%d" % n for n in range(5)], partitions=2, partition=0, timestamp=1_000)
    write("qa.in", [b"x", b"y"], partition=1, timestamp=1_000)
    write(RETRY, [b"again"])
    committed(clients, "qa.step", ("qa.in", 0, 3), ("qa.in", 1, 0), (RETRY, 0, 1))
    return clients


def moves(planned: Reset) -> list[tuple[str, int, int | None, int]]:
    return [(move.topic, move.partition, move.before, move.after) for move in planned.moves]


def test_lag_is_counted_per_partition_topic_and_in_total(read: InMemoryClients) -> None:
    found = describe_group(read, "qa.step")
    assert [(one.topic, one.partition, one.committed, one.end, one.lag) for one in found.partitions] == [
        ("qa.in", 0, 3, 5, 2),
        ("qa.in", 1, 0, 2, 2),
        (RETRY, 0, 1, 1, 0),
    ]
    assert (dict(found.topics), found.lag, found.members) == ({"qa.in": 4, RETRY: 0}, 4, 0)


def test_a_partition_that_is_owned_and_not_committed_lags_from_the_start_of_its_log(
    clients: InMemoryClients, write: Write
) -> None:
    write("t", [b"1", b"2", b"3"])
    clients.admin().delete_records({TopicPartition("t", 0): 1})
    with member(clients, "g", "t"):
        (one,) = describe_group(clients, "g").partitions
        assert (one.committed, one.lag, one.client) == (None, 2, "sage")
        assert describe_group(clients, "g").members == 1


def test_the_group_that_shares_out_sources_lags_behind_nothing(clients: InMemoryClients, write: Write) -> None:
    write("qa.offsets", [b"here", b"there"])
    with member(clients, "qa.offsets", "qa.offsets"):
        (one,) = describe_group(clients, "qa.offsets").partitions
        assert (one.end, one.lag, one.client) == (2, 0, "sage")


def test_an_open_transaction_is_no_lag(clients: InMemoryClients, write: Write) -> None:
    write("t", [b"1"])
    producer = clients.producer(transactional_id="x")
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce("t", b"2")
    producer.flush(5)
    committed(clients, "g", ("t", 0, 1))
    assert describe_group(clients, "g").lag == 0
    producer.abort_transaction()


def test_groups_are_listed_by_prefix(read: InMemoryClients, write: Write) -> None:
    write("other.in", [b"1"])
    committed(read, "other.step", ("other.in", 0, 0))
    assert [(one.name, one.lag) for one in list_groups(read)] == [("other.step", 1), ("qa.step", 4)]
    assert [one.name for one in list_groups(read, prefix="qa.")] == ["qa.step"]
    with pytest.raises(NotFound, match=re.escape("no group 'qa.stpe' on")):
        describe_group(read, "qa.stpe")


@pytest.mark.parametrize(
    ("to", "after", "again", "skipped"),
    [
        ("earliest", [0, 0], 3, 0),
        ("latest", [5, 2], 0, 4),
        ("1", [1, 1], 2, 1),
        ("99", [5, 2], 0, 4),
        ("-2", [1, 0], 2, 0),
        ("+1", [4, 1], 0, 2),
        ("1970-01-01T00:00:01.002+00:00", [2, 2], 1, 2),
    ],
)
def test_where_a_reset_leads(read: InMemoryClients, to: str, after: list[int], again: int, skipped: int) -> None:
    planned = plan_reset(read, "qa.step", Target.parse(to))
    assert moves(planned) == [("qa.in", 0, 3, after[0]), ("qa.in", 1, 0, after[1])]
    assert (planned.again, planned.skipped) == (again, skipped)
    assert planned.left == (RETRY,)
    assert describe_group(read, "qa.step").lag == 4, "a plan changes nothing"
    execute(read, planned)
    assert [one.committed for one in describe_group(read, "qa.step").partitions] == [*after, 1]


def test_a_time_before_everything_is_the_start_and_one_after_it_the_end(read: InMemoryClients) -> None:
    assert [move.after for move in plan_reset(read, "qa.step", Target.parse("1970-01-01")).moves] == [0, 0]
    assert [move.after for move in plan_reset(read, "qa.step", Target.parse("1s")).moves] == [5, 2]


def test_the_retry_topic_moves_only_where_it_is_named(read: InMemoryClients) -> None:
    planned = plan_reset(read, "qa.step", Target.parse("earliest"), [RETRY])
    assert moves(planned) == [(RETRY, 0, 1, 0)]
    assert planned.left == ()


def test_a_group_that_has_read_nothing_can_be_given_a_place(read: InMemoryClients) -> None:
    with pytest.raises(NotFound, match="group new: has read nothing"):
        plan_reset(read, "new", Target.parse("latest"))
    planned = plan_reset(read, "new", Target.parse("latest"), ["qa.in"])
    assert moves(planned) == [("qa.in", 0, None, 5), ("qa.in", 1, None, 2)]
    execute(read, planned)
    assert describe_group(read, "new").lag == 0


def test_state_that_a_reset_does_not_take_back_is_said(read: InMemoryClients, write: Write) -> None:
    assert not plan_reset(read, "qa.step", Target.parse("earliest")).has_state
    write("qa.step.changelog", [])
    assert plan_reset(read, "qa.step", Target.parse("earliest")).has_state


def test_a_group_with_members_is_left_alone(read: InMemoryClients) -> None:
    with member(read, "qa.step", "qa.in"), pytest.raises(SageError, match=r"group qa\.step: has a member"):
        plan_reset(read, "qa.step", Target.parse("earliest"))


@pytest.mark.parametrize("text", ["soon", "", "2w", "+", "1.5", "2026-13-01", "-x"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no place; give earliest"):
        Target.parse(text)
