"""On Apache Kafka: a timer whose output the broker does not take for its size is a dead letter, once, and done."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage import Context, LocalEnvironment
from sage.ports import TopicSpec
from sage.spec.options import Guarantee
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, values_of
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

LIMIT = 20_000


def ringing(value: str, ctx: Context) -> Iterator[Any]:
    ctx.timer.set(value, after=0.1)
    yield value


def ring(name: str, ctx: Context) -> Iterator[Any]:
    yield f"{name} rang" + "x" * (LIMIT if name == "large" else 10)


async def ringing_later(value: str, ctx: Context) -> AsyncIterator[Any]:
    for item in ringing(value, ctx):
        yield item


async def ring_later(name: str, ctx: Context) -> AsyncIterator[Any]:
    for item in ring(name, ctx):
        yield item


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_timers_that_the_broker_refuses_cost_only_themselves(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path, guarantee: Guarantee
) -> None:
    name = unique("bells")
    clients = apache_kafka.clients()
    kinds: dict[str, Any] = {"sync": (ringing, ring), "later": (ringing_later, ring_later)}
    clients.admin().create([TopicSpec(f"{name}-{kind}", config={"max.message.bytes": str(LIMIT)}) for kind in kinds])
    address = apache_kafka.bootstrap_servers
    with LocalEnvironment(name, guarantee=guarantee, bootstrap_servers=address, data_dir=tmp_path) as env:
        keyed = env.from_collection(["small", "large", "other"], name="source").key_by(lambda v: v, name="keyed")
        for kind, (step, on_timer) in kinds.items():
            keyed.process(step, on_timer=on_timer, name=kind).to(f"{name}-{kind}")
        assert env.run_once(90).complete
        due = time.time() + 0.1
        wait_until(lambda: time.time() > due, what="all timers are overdue")
        assert env.run_once(90).complete, "what fell due since has rung"
    dead = [dict(letter.headers() or ()) for letter in everything(clients, f"{name}.dlq")]
    assert sorted(each["__connect.errors.stage"] or b"" for each in dead) == [b"later", b"sync"]
    assert {each["sage.timer"] for each in dead} == {b"large"}
    for kind in kinds:
        written = [value.rstrip("x") for value in values_of(everything(clients, f"{name}-{kind}"))]
        assert set(written) == {"small", "large", "other", "small rang", "other rang"}, kind
        if guarantee == "exactly_once":
            assert len(written) == 5, kind
