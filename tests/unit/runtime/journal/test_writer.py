"""Results into the journal: until the broker has them, or somebody must look at the topic."""

from __future__ import annotations

import asyncio

import pytest

from sage.errors import StageStopped
from sage.ports import KafkaClients
from sage.runtime.journal.entry import Assembly, CallKey, Place, Stored
from sage.runtime.journal.writer import SMALLEST, ResultWriter
from sage.testing.broker import InMemoryClients
from tests.unit.runtime.journal.writing import TOPIC, Breaking, broker, run

PLACE = Place("in", 0, 3)


def key(number: int) -> CallKey:
    return CallKey(f"r{number}", "ask", "h", 0)


def written(clients: InMemoryClients) -> dict[str, Stored]:
    """What a reader of the journal would put together."""
    assembly = Assembly()
    found = [stored for message in clients.messages(TOPIC, 0) if (stored := assembly.add(message)) is not None]
    return {stored.key.record_id: stored for stored in found}


async def write(clients: KafkaClients, *results: bytes) -> list[tuple[int, int]]:
    """Write all of them at the same time; their offsets."""
    writer = ResultWriter(clients, TOPIC, 't step "work"')
    writer.open()
    try:
        return await asyncio.gather(
            *(writer.write(0, key(number), PLACE, data, []) for number, data in enumerate(results))
        )
    finally:
        await writer.close()


def test_a_result_is_where_the_writer_says() -> None:
    clients = broker()
    offsets = run(write(clients, b"one", b"x" * 2_000_000))
    found = written(clients)
    assert found["r0"] == Stored(key(0), PLACE, b"one", *offsets[0])
    assert found["r1"] == Stored(key(1), PLACE, b"x" * 2_000_000, *offsets[1])
    assert offsets[1][1] - offsets[1][0] == 2


def test_a_topic_that_takes_less_gets_smaller_records_however_many_fail_at_once() -> None:
    clients = broker(message_max_bytes=100_000)
    results = [bytes([number]) * 700_000 for number in range(40)]
    run(write(clients, *results))
    assert {name: stored.data for name, stored in written(clients).items()} == {
        f"r{number}": data for number, data in enumerate(results)
    }
    largest = max(len(message.value() or b"") for message in clients.messages(TOPIC))
    assert largest > 50_000, "halved as often as needed, and not once for each that failed"


def test_a_topic_that_takes_next_to_nothing_stops_the_stage() -> None:
    with pytest.raises(StageStopped, match=f"records of {SMALLEST} bytes are too large"):
        run(write(broker(message_max_bytes=SMALLEST // 2), b"x" * SMALLEST))


def test_a_refusal_that_may_pass_is_tried_again_until_the_broker_has_it() -> None:
    clients = broker()
    for _ in range(4):
        clients.fail_next_delivery(TOPIC)
    (offsets,) = run(write(clients, b"paid"))
    assert written(clients)["r0"] == Stored(key(0), PLACE, b"paid", *offsets)


def test_a_part_that_was_refused_leaves_no_half_result() -> None:
    clients = broker(message_max_bytes=10_000_000)
    clients.fail_next_delivery(TOPIC)  # the first of three parts; the others arrive, and belong to nothing
    run(write(clients, b"x" * 2_000_000))
    assert len(clients.messages(TOPIC)) == 5
    assert written(clients)["r0"].data == b"x" * 2_000_000


def test_many_that_wait_for_the_broker_look_for_the_topic_once() -> None:
    world = broker()
    clients = Breaking(world)
    for _ in range(200):
        world.fail_next_delivery(TOPIC)
    run(write(clients, *[b"paid"] * 200))
    assert len(written(world)) == 200
    assert clients.admins == 1


def test_a_topic_that_is_gone_stops_the_stage_and_says_so() -> None:
    clients = broker()
    clients.admin().delete([TOPIC])
    with pytest.raises(StageStopped, match=r"does not exist \(any more\)"):
        run(write(clients, b"paid"))


def test_a_topic_that_went_while_the_broker_was_away_stops_the_stage() -> None:
    clients = broker()
    clients.fail_next_delivery(TOPIC)
    clients.admin().delete([TOPIC])
    with pytest.raises(StageStopped, match=r"does not exist \(any more\)"):
        run(write(clients, b"paid"))


def test_a_topic_that_refuses_us_stops_the_stage_and_says_where_to_look() -> None:
    clients = broker()
    clients.fail_next_delivery(TOPIC, reason="Broker: Topic authorization failed", retriable=False)
    with pytest.raises(StageStopped, match=r"authorization failed; nothing was committed past it\. See the"):
        run(write(clients, b"paid"))


def test_a_broker_that_is_away_is_waited_for() -> None:
    clients = broker()

    async def go() -> list[tuple[int, int]]:
        with clients.down():
            clients.fail_next_delivery(TOPIC)
            writing = asyncio.create_task(write(clients, b"paid"))
            await asyncio.sleep(600)
            assert not writing.done()
        return await writing

    assert len(run(go())) == 1
    assert written(clients)["r0"].data == b"paid"
