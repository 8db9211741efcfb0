"""Topologies in this process, over real brokers: what goes in comes out, and stays readable on every edge."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sage import Context, LocalEnvironment
from sage.errors import StageStopped, Unauthorized
from tests.support.brokers import Broker
from tests.support.records import everything, fill, make_topic, total_lag, values_of

TIMEOUT = 60


@pytest.fixture
def env(broker: Broker, unique: Callable[[str], str], tmp_path: Path) -> Iterator[LocalEnvironment]:
    """An environment of its own name on each broker."""
    with LocalEnvironment(unique("t"), bootstrap_servers=broker.bootstrap_servers, data_dir=tmp_path) as made:
        yield made


class Order(BaseModel):
    id: int
    price: float


def test_every_kind_of_step_in_one_run(env: LocalEnvironment) -> None:
    async def double(value: int) -> int:
        await asyncio.sleep(0.001)
        return value * 2

    numbers = env.from_collection(range(20))
    routed = numbers.filter(lambda n: n != 3).map(double, concurrency=8).route({"small": lambda n: n < 10})
    small = routed.small.flatmap(lambda n: [n, n + 1]).collect()
    other = routed.other.map_batches(lambda ns: [n * 100 for n in ns], max_size=4, max_wait=0.01).collect()
    both = routed.small.union(routed.other).key_by(lambda n: n % 5).collect()

    report = env.run_once(TIMEOUT)

    assert report.complete
    assert small == [0, 1, 2, 3, 4, 5, 8, 9]
    assert other == [n * 200 for n in range(5, 20)]
    assert sorted(both) == [n * 2 for n in range(20) if n != 3]
    assert (report.read, report.dead) == (20, 0)


def test_blocking_state_is_worked_on_in_threads_and_key_by_key(env: LocalEnvironment) -> None:
    both_keys_are_here = threading.Barrier(2, timeout=30)

    def count(value: int, ctx: Context) -> Iterator[tuple[int, int]]:
        if value < 2:
            both_keys_are_here.wait()  # passes only where two calls are under way at once
        n = ctx.state.get("n", 0)
        time.sleep(0.001)
        ctx.state["n"] = n + 1
        yield value, n + 1

    keyed = env.from_collection(range(40)).key_by(lambda value: value % 2)
    counted = keyed.process(count, name="count", blocking=True, concurrency=4).collect()

    report = env.run_once(TIMEOUT)

    assert (report.complete, report.dead) == (True, 0)
    assert sorted(counted) == [[value, value // 2 + 1] for value in range(40)]


def test_a_second_run_gives_what_is_new_and_the_same_plan_changes_nothing(env: LocalEnvironment) -> None:
    seen = env.from_collection(["a", "b"]).map(str.upper, name="upper").collect()

    env.submit()
    env.submit()
    first = env.run_once(TIMEOUT)
    second = env.run_once(TIMEOUT)

    assert first.complete
    assert second.complete
    assert seen == ["A", "B"]


def test_a_topic_is_read_from_its_start_and_written_with_keys_headers_and_timestamps(
    env: LocalEnvironment, broker: Broker, unique: Callable[[str], str]
) -> None:
    source, target = unique("in"), unique("out")
    clients = broker.clients()
    make_topic(clients, source, 3)
    producer = clients.producer()
    now = time.time_ns() // 1_000_000 - 3_600_000  # an hour old, so that no broker's retention takes them
    headers = [("a", b"1"), ("a", b"2"), ("empty", b""), ("null", None)]
    for number in range(30):
        producer.produce(source, b'{"n": %d}' % number, b"k%d" % (number % 7), headers, now + number)
    assert producer.flush(20) == 0
    assert producer.take_failures() == []
    env.from_topic(source).map(lambda value: {"n": value["n"] + 1}, name="inc").to(target)

    env.run_once(TIMEOUT)

    written = everything(clients, target)
    assert sorted(value["n"] for value in values_of(written)) == list(range(1, 31))
    for message in written:
        number = values_of([message])[0]["n"] - 1
        assert message.key() == b"k%d" % (number % 7)
        assert message.timestamp()[1] == now + number
        assert list(message.headers() or ())[:4] == headers
        assert [name for name, _ in message.headers() or ()][4:] == ["traceparent", "sage.id"]
    assert total_lag(clients, f"{env.topology.name}.inc", source, 3) == 0


def test_what_cannot_be_read_or_processed_is_kept_as_a_dead_letter(
    env: LocalEnvironment, broker: Broker, unique: Callable[[str], str]
) -> None:
    source = unique("in")
    clients = broker.clients()
    make_topic(clients, source)
    fill(clients, source, [b'{"n": 1}', b"{broken", b'{"m": 2}', b'{"n": 3}'])

    def take(value: dict[str, int]) -> int:
        return value["n"]

    seen = env.from_topic(source).map(take).collect()
    report = env.run_once(TIMEOUT)

    letters = everything(clients, f"{env.topology.name}.dlq")
    headers = [dict(letter.headers() or ()) for letter in letters]
    assert seen == [1, 3]
    assert (report.dead_letters, report.steps["take"].dead) == (2, 2)
    assert [letter.value() for letter in letters] == [b"{broken", b'{"m": 2}']
    assert [header["__connect.errors.stage"] for header in headers] == [b"take", b"take"]
    assert [header["__connect.errors.offset"] for header in headers] == [b"1", b"2"]
    assert [header["__connect.errors.topic"] for header in headers] == [source.encode()] * 2
    assert headers[0]["__connect.errors.exception.class.name"].endswith(b"DecodeFailure")
    assert headers[1]["__connect.errors.exception.class.name"].endswith(b"KeyError")


def test_transient_failures_are_tried_again_and_then_succeed(env: LocalEnvironment) -> None:
    tries: dict[int, int] = {}

    async def flaky(value: int) -> int:
        tries[value] = tries.get(value, 0) + 1
        if value == 2 and tries[value] < 3:
            raise ConnectionError("not yet")
        return value

    seen = env.from_collection([1, 2, 3]).map(flaky, retry={"attempts": 4, "backoff": 0.01}, concurrency=3).collect()
    report = env.run_once(TIMEOUT)

    assert seen == [1, 2, 3]
    assert tries == {1: 1, 2: 3, 3: 1}
    assert report.steps["flaky"].retried == 2


def test_wrong_credentials_stop_the_stage_and_keep_the_records(env: LocalEnvironment, broker: Broker) -> None:
    refused = True

    async def ask(value: int) -> int:
        if refused:
            raise Unauthorized("the key was refused")
        return value

    seen = env.from_collection([1, 2]).map(ask).collect()
    with pytest.raises(Unauthorized, match="the key was refused"):
        env.run_once(TIMEOUT)
    env.stop()

    refused = False
    env.redirect(resume=True)
    env.run_once(TIMEOUT)
    assert sorted(seen) == [1, 2]
    assert everything(broker.clients(), f"{env.topology.name}.dlq") == []


def test_on_error_fail_stops_with_the_record_named(env: LocalEnvironment) -> None:
    def bad(value: int) -> int:
        raise ValueError(f"no {value}")

    env.from_collection([7]).map(bad, on_error="fail").collect()
    with pytest.raises(StageStopped, match=r"bad.*collection-0@0.*no 7"):
        env.run_once(TIMEOUT)


def test_steps_get_the_models_they_ask_for_and_a_context(env: LocalEnvironment) -> None:
    def price(order: Order, ctx: Context) -> dict[str, Any]:
        return {"total": order.price * 2, "step": ctx.step, "id": ctx.record_id}

    seen = env.from_collection([{"id": 1, "price": 2.5}]).map(price).collect()
    env.run_once(TIMEOUT)

    assert seen[0]["total"] == 5.0
    assert seen[0]["step"] == "price"
    assert seen[0]["id"]


def test_order_of_a_key_survives_concurrent_calls(env: LocalEnvironment) -> None:
    async def uneven(value: dict[str, int]) -> dict[str, int]:
        await asyncio.sleep(0.02 if value["n"] % 3 == 0 else 0.001)
        return value

    values = [{"k": n % 4, "n": n} for n in range(80)]
    seen = (
        env.from_collection(values).key_by(lambda value: value["k"], partitions=2).map(uneven, concurrency=16).collect()
    )
    env.run_once(TIMEOUT)

    assert len(seen) == 80
    for key in range(4):
        assert [value["n"] for value in seen if value["k"] == key] == [n for n in range(80) if n % 4 == key]


def test_null_keys_null_values_and_falsy_keys_travel_as_they_are(
    env: LocalEnvironment, broker: Broker, unique: Callable[[str], str]
) -> None:
    target = unique("out")
    env.from_collection([0, "", None, False, 5]).key_by(lambda value: value).map(lambda value: value).to(target)
    env.run_once(TIMEOUT)

    written = everything(broker.clients(), target)
    assert [(message.key(), message.value()) for message in written] == [
        (b"0", b"0"),
        (b"", b'""'),
        (None, None),
        (b"false", b"false"),
        (b"5", b"5"),
    ]


def test_bytes_stay_bytes_between_steps(env: LocalEnvironment) -> None:
    async def measure(value: bytes) -> int:
        return len(value)

    seen = env.from_collection(["ab", "123"]).map(lambda text: text.encode()).map(measure).collect()
    env.run_once(TIMEOUT)

    assert seen == [2, 3]


def test_an_output_over_the_size_limit_is_a_dead_letter_and_its_neighbours_live(
    env: LocalEnvironment, broker: Broker
) -> None:
    def grow(value: int) -> str:
        return "x" * (2_000_000 if value == 1 else 10)

    seen = env.from_collection([0, 1, 2]).map(grow).collect()
    report = env.run_once(TIMEOUT)

    (letter,) = everything(broker.clients(), f"{env.topology.name}.dlq")
    assert seen == ["x" * 10] * 2
    assert report.dead_letters == 1
    assert letter.value() == b"1"
    assert dict(letter.headers() or ())["__connect.errors.exception.class.name"].endswith(b"RecordTooLarge")
