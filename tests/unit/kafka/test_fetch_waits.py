"""Fetches that wait, in front of the embedded broker."""

from __future__ import annotations

import asyncio

from sage.kafka.launchers.fetch_waits import ANY, REMEMBERED, Asked, FetchWaits, written_topic

FOR_EVER = 3600.0
CLIENT = b"\0\x04sage"


def frame(api: int, version: int, body: bytes, correlation: int = 7) -> bytes:
    content = api.to_bytes(2, "big") + version.to_bytes(2, "big") + correlation.to_bytes(4, "big") + body
    return len(content).to_bytes(4, "big") + content


def produce_8(transaction: bytes | None, *topics: bytes) -> bytes:
    named = b"\xff\xff" if transaction is None else len(transaction).to_bytes(2, "big") + transaction
    each = b"".join(len(topic).to_bytes(2, "big") + topic + b"\0\0\0\x01rest" for topic in topics)
    return frame(0, 8, CLIENT + named + b"\xff\xff\0\0\x75\x30" + len(topics).to_bytes(4, "big") + each)


def produce_9(transaction: bytes | None, *topics: bytes) -> bytes:
    named = b"\0" if transaction is None else varint(len(transaction) + 1) + transaction
    each = b"".join(varint(len(topic) + 1) + topic + b"\x02rest" for topic in topics)
    return frame(0, 9, CLIENT + b"\0" + named + b"\xff\xff\0\0\x75\x30" + varint(len(topics) + 1) + each)


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128, number >> 7])


def test_the_topic_that_is_written_to_is_known_in_all_versions_of_produce() -> None:
    long = b"t" * 249
    for produce in (produce_8, produce_9):
        for transaction in (None, b"orders.count.8f", b"i" * 200):
            for topic in (b"a", b"orders", long):
                assert written_topic(produce(transaction, topic)) == topic
            assert written_topic(produce(transaction, b"a", b"b")) == ANY


def test_the_end_of_a_transaction_may_give_something_to_read_in_any_topic_and_other_requests_nothing() -> None:
    assert written_topic(frame(26, 1, CLIENT)) == ANY
    assert written_topic(frame(1, 12, CLIENT)) is None
    assert written_topic(frame(12, 4, CLIENT)) is None


def test_a_produce_that_is_cut_short_or_unknown_ends_all_waits_that_it_may_be_for() -> None:
    whole = produce_9(b"id", b"orders")
    found = [written_topic(whole[:length]) for length in range(12, len(whole))]
    assert all(topic is not None and b"orders".startswith(topic) for topic in found)
    assert written_topic(frame(0, 9, CLIENT + b"\x01\x00\x00" + b"x" * 40)) == ANY


async def test_a_fetch_waits_until_one_of_its_topics_is_written_to() -> None:
    waits = FetchWaits()
    waiting = asyncio.create_task(waits.wait(b"..orders..", 0, FOR_EVER))
    await asyncio.sleep(0)
    waits.written(b"answers")
    await asyncio.sleep(0)
    assert not waiting.done()
    waits.written(b"orders")
    await asyncio.wait_for(waiting, 10)


async def test_what_was_written_since_the_fetch_before_is_not_waited_for() -> None:
    waits = FetchWaits()
    since = waits.news
    waits.written(b"orders")  # after that fetch was sent, and maybe before the broker looked
    await asyncio.wait_for(waits.wait(b"..orders..", since, FOR_EVER), 10)
    waiting = asyncio.create_task(waits.wait(b"..orders..", waits.news, FOR_EVER))
    await asyncio.sleep(0)
    assert not waiting.done()
    waits.written(ANY)
    await asyncio.wait_for(waiting, 10)


async def test_a_wait_has_an_end_and_may_be_given_up() -> None:
    waits = FetchWaits()
    await asyncio.wait_for(waits.wait(b"..orders..", 0, 0.0), 10)
    waiting = asyncio.create_task(waits.wait(b"..orders..", 0, FOR_EVER))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    waits.written(b"orders")  # nobody is there any more
    assert waiting.cancelled()


def test_a_client_that_begins_with_another_partition_each_time_repeats_itself_too() -> None:
    asked = Asked()
    for number, body in enumerate([b"abc", b"bca", b"cab"]):
        assert asked.before(frame(1, 12, body, number)) is None
        asked.sent(frame(1, 12, body, number), number)
    assert [asked.before(frame(1, 12, body, 9)) for body in (b"abc", b"bca", b"cab", b"Abc")] == [0, 1, 2, None]


async def test_what_came_while_a_partition_was_paused_is_not_waited_for_when_it_is_asked_for_again() -> None:
    asked, waits = Asked(), FetchWaits()
    both, one = frame(1, 12, b"..first..second.."), frame(1, 12, b"..first..")
    asked.sent(both, waits.news)
    waits.written(b"second")
    asked.sent(one, waits.news)
    since = asked.before(both)
    assert since is not None
    await asyncio.wait_for(waits.wait(both, since, FOR_EVER), 10)


def test_what_a_client_asked_long_ago_is_forgotten() -> None:
    asked = Asked()
    fetches = [frame(1, 12, b"%d" % number) for number in range(REMEMBERED + 1)]
    for number, fetch in enumerate(fetches):
        asked.sent(fetch, number)
    assert [asked.before(fetches[number]) for number in (0, 2)] == [None, 2]
