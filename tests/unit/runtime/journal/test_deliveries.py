"""Records that are awaited until the broker has answered, whatever becomes of the producer meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from sage.errors import RecordTooLarge, StageStopped, TransientFailure, Unauthorized
from sage.ports import KafkaClients, ProducerFatal
from sage.runtime.journal.deliveries import MAX_REPLACED, Deliveries
from tests.unit.runtime.journal.writing import TOPIC, Breaking, broker, run


async def opened(clients: KafkaClients) -> Deliveries:
    deliveries = Deliveries(clients)
    deliveries.open()
    return deliveries


async def send(deliveries: Deliveries, number: int = 0, partition: int = 0) -> int:
    """The offset of one record."""
    return await (await deliveries.queue(TOPIC, partition, b"r", b"%d" % number, []))


def fatal(at: str) -> Callable[[str], None]:
    """Breaks a producer for good when it is asked to ``at``."""

    def broken(asked: str) -> None:
        if asked == at:
            raise ProducerFatal("Local: Fatal error")

    return broken


def test_each_record_is_told_its_offset() -> None:
    async def go() -> list[int]:
        deliveries = await opened(broker())
        return [await send(deliveries, partition=0), await send(deliveries, partition=1), await send(deliveries)]

    assert run(go()) == [0, 0, 1]


def test_a_full_queue_is_waited_for_and_nothing_is_lost() -> None:
    clients = broker(queue_limit=3)

    async def go() -> list[int]:
        deliveries = await opened(clients)
        with clients.deliveries_held():
            sent = [asyncio.create_task(send(deliveries, number)) for number in range(20)]
            await asyncio.sleep(1)
            assert not any(task.done() for task in sent)
        return await asyncio.gather(*sent)

    assert sorted(run(go())) == list(range(20))
    assert sorted(int(message.value() or b"") for message in clients.messages(TOPIC)) == list(range(20))


@pytest.mark.parametrize(
    ("too_large", "retriable", "kind"),
    [(True, False, RecordTooLarge), (False, True, TransientFailure), (False, False, StageStopped)],
)
def test_what_the_broker_refuses_is_said_to_whoever_waits(
    too_large: bool, retriable: bool, kind: type[Exception]
) -> None:
    clients = broker()
    clients.fail_next_delivery(TOPIC, reason="the broker's reason", too_large=too_large, retriable=retriable)

    async def go() -> int:
        deliveries = await opened(clients)
        with pytest.raises(kind, match="the broker's reason"):
            await send(deliveries)
        return await send(deliveries)

    assert run(go()) == 0


@pytest.mark.parametrize("at", ["produce", "poll"])
def test_a_producer_that_broke_for_good_is_replaced(at: str) -> None:
    clients = Breaking(broker(), fatal(at))

    async def go() -> int:
        deliveries = await opened(clients)
        if at == "poll":  # what it had under way is sent again by whoever waits for it
            with pytest.raises(TransientFailure, match="Fatal error"):
                await send(deliveries)
        return await send(deliveries, 7)

    run(go())
    assert len(clients.made) == 2


def test_producers_that_all_break_are_given_up_and_everybody_hears_of_it() -> None:
    clients = Breaking(broker(), *[fatal("produce")] * (MAX_REPLACED + 1))

    async def go() -> None:
        deliveries = await opened(clients)
        for _ in range(2):
            with pytest.raises(StageStopped, match=f"{MAX_REPLACED} producers in a row"):
                await send(deliveries)

    run(go())


def test_a_delivery_in_between_gives_the_next_producers_new_credit() -> None:
    broken = {"until": MAX_REPLACED}

    def sometimes(asked: str) -> None:
        if asked == "produce" and broken["until"] > 0:
            broken["until"] -= 1
            raise ProducerFatal("Local: Fatal error")

    clients = Breaking(broker(), *[sometimes] * (3 * MAX_REPLACED))

    async def go() -> None:
        deliveries = await opened(clients)
        for number in range(2):
            broken["until"] = MAX_REPLACED
            assert await send(deliveries, number) == number

    run(go())
    assert len(clients.made) == 1 + 2 * MAX_REPLACED


def test_refused_credentials_are_said_to_whoever_waits() -> None:
    refused = {"polls": 1}

    def unauthorized(asked: str) -> None:
        if asked == "poll" and refused["polls"]:
            refused["polls"] -= 1
            raise Unauthorized("SASL authentication failed")

    async def go() -> None:
        deliveries = await opened(Breaking(broker(), unauthorized))
        with pytest.raises(Unauthorized, match="SASL"):
            await send(deliveries)
        await send(deliveries)

    run(go())


def test_closing_sends_what_is_queued_and_leaves_nobody_waiting() -> None:
    clients = broker()

    async def go() -> None:
        deliveries = await opened(clients)
        with clients.deliveries_held():
            answer = await deliveries.queue(TOPIC, 0, b"r", b"1", [])
        await deliveries.close()
        with pytest.raises(TransientFailure, match="closed"):
            await answer

    run(go())
    assert [message.value() for message in clients.messages(TOPIC)] == [b"1"]
