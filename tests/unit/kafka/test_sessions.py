"""Sessions of the embedded broker's members: who is not heard of is dead, and nobody else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sage.kafka.launchers.sessions import (
    DEFAULT_TIMEOUT,
    HEARTBEAT,
    JOIN_GROUP,
    LEAVE_GROUP,
    PATIENCE,
    SYNC_GROUP,
    Connection,
    Member,
    Sessions,
)

SESSION = 6.0
FIRST = Member("readers", "rdkafka-1")
GENERATION = (3).to_bytes(4, "big")


def text(value: str) -> bytes:
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def request(api: int, version: int, correlation: int, body: bytes) -> bytes:
    content = api.to_bytes(2, "big") + version.to_bytes(2, "big") + correlation.to_bytes(4, "big") + text("sage") + body
    return len(content).to_bytes(4, "big") + content


def join(correlation: int, member: str = "", version: int = 5) -> bytes:
    timeouts = int(SESSION * 1000).to_bytes(4, "big") + ((300_000).to_bytes(4, "big") if version else b"")
    return request(JOIN_GROUP, version, correlation, text("readers") + timeouts + text(member) + b"...")


def joined(correlation: int, member: str, version: int = 5, error: int = 0) -> bytes:
    throttled = b"\0\0\0\0" if version >= 2 else b""
    body = throttled + error.to_bytes(2, "big") + GENERATION + text("range") + text("leader") + text(member)
    content = correlation.to_bytes(4, "big") + body
    return len(content).to_bytes(4, "big") + content


def of_member(api: int, correlation: int = 9) -> bytes:
    return request(api, 3, correlation, text("readers") + GENERATION + text("rdkafka-1") + b"\xff\xff")


def with_one_member(version: int = 5) -> tuple[Sessions, Connection]:
    sessions = Sessions()
    connection = sessions.connected()
    sessions.asked(connection, join(1, version=version))
    sessions.answered(connection, joined(1, "rdkafka-1", version))
    return sessions, connection


def test_a_member_that_is_not_heard_of_for_its_session_is_dead_once() -> None:
    for version in (0, 1, 2, 5):
        sessions, _ = with_one_member(version)
        assert sessions.passed(SESSION - 0.5) == []
        assert sessions.passed(0.5) == [FIRST]
        assert sessions.passed(SESSION) == []


def test_each_heartbeat_begins_the_session_anew_on_whatever_connection() -> None:
    sessions, first = with_one_member()
    sessions.passed(5)
    sessions.asked(first, of_member(HEARTBEAT))
    assert sessions.passed(5) == []
    sessions.disconnected(first)
    sessions.asked(sessions.connected(), of_member(HEARTBEAT))
    assert sessions.passed(5) == []
    assert sessions.passed(1) == [FIRST]


def test_who_waits_for_the_others_of_its_group_is_not_silent_while_its_connection_lives() -> None:
    sessions, connection = with_one_member()
    sessions.asked(connection, join(2, "rdkafka-1"))
    assert sessions.passed(60) == []
    sessions.answered(connection, joined(2, "rdkafka-1"))
    sessions.asked(connection, of_member(SYNC_GROUP, 3))
    assert sessions.passed(60) == []
    sessions.disconnected(connection)
    assert sessions.passed(SESSION) == [FIRST]


def test_of_members_that_all_wait_for_each_other_one_asks_again() -> None:
    sessions, first = with_one_member()
    second = sessions.connected()
    sessions.asked(first, join(2, "rdkafka-1"))
    sessions.passed(PATIENCE / 2)
    sessions.asked(second, join(3, "rdkafka-2"))
    sessions.passed(PATIENCE / 2)
    assert sessions.forgotten() == []  # the second may be answered yet
    sessions.passed(PATIENCE / 2)
    assert sessions.forgotten() == [first]
    sessions.disconnected(first)
    again = sessions.connected()
    sessions.asked(again, join(1, "rdkafka-1"))
    sessions.answered(again, joined(1, "rdkafka-1"))
    sessions.answered(second, joined(3, "rdkafka-2"))
    sessions.passed(PATIENCE)
    assert sessions.forgotten() == []


def test_who_waits_for_a_member_that_finishes_its_work_is_left_to_wait() -> None:
    sessions, first = with_one_member()
    second = sessions.connected()
    sessions.asked(second, join(3, "rdkafka-2"))
    for _ in range(5):
        sessions.passed(PATIENCE / 2)
        sessions.asked(first, of_member(HEARTBEAT))
        assert sessions.forgotten() == []


def test_who_left_or_was_refused_has_no_session() -> None:
    sessions, connection = with_one_member()
    sessions.asked(connection, request(LEAVE_GROUP, 1, 5, text("readers") + text("rdkafka-1")))
    sessions.asked(connection, join(6))
    sessions.answered(connection, joined(6, "rdkafka-2", error=79))  # an id to join again with
    assert sessions.passed(60) == []


def test_a_member_whose_joining_was_not_seen_has_kafkas_own_session() -> None:
    sessions = Sessions()
    sessions.asked(sessions.connected(), of_member(HEARTBEAT))
    assert sessions.passed(DEFAULT_TIMEOUT - 1) == []
    assert sessions.passed(1) == [FIRST]


@given(st.binary(max_size=80), st.sampled_from([JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP]), st.integers(0, 9))
def test_no_frame_is_too_strange(body: bytes, api: int, version: int) -> None:
    sessions, connection = with_one_member()
    sessions.asked(connection, request(api, version, 7, b"")[:14] + body)
    sessions.answered(connection, (4 + len(body)).to_bytes(4, "big") + (7).to_bytes(4, "big") + body)
    assert FIRST in sessions.passed(600) or api == LEAVE_GROUP
