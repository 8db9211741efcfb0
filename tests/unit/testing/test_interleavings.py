"""A seed draws the order of events: the same seed the same order, many seeds find races."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from typing import Any

import pytest

from sage.graph.builder import StreamBuilder
from sage.testing import Crash, ManualClock, TopologyDriver
from sage.testing.interleaving import ShuffledLoop, stir
from tests.unit.testing.driven import MakeDriver

pytest_plugins = ["pytester"]


def racy() -> StreamBuilder:
    """Reads a shared total, gives others a turn, and writes it back: the oldest race there is."""
    total = {"n": 0}

    async def add(value: int) -> int:
        before = total["n"]
        if value % 2:
            await asyncio.sleep(0)
        total["n"] = before + 1
        return total["n"]

    builder = StreamBuilder("t")
    builder.from_collection([], name="source", partitions=2).map(add, name="work", ordering="none", concurrency=4)
    return builder


def traced(seed: int | None) -> list[Any]:
    """The order in which things happened in a run."""
    happened: list[Any] = []

    async def slow(value: int) -> int:
        happened.append(("begin", value))
        await asyncio.sleep(0)
        happened.append(("end", value))
        return value

    builder = StreamBuilder("t")
    stream = builder.from_collection([], name="source", partitions=3).map(slow, name="slow", concurrency=8)
    stream.map(lambda value: happened.append(("after", value)), name="after")
    with TopologyDriver(builder, seed=seed) as driver:
        driver.send_all(range(8))
        driver.advance(1)
    return happened


def test_one_seed_is_one_order_and_another_is_another() -> None:
    assert traced(7) == traced(7)
    assert traced(None) == traced(None)
    assert len({tuple(traced(seed)) for seed in range(10)}) > 5


def test_every_order_does_the_same_work() -> None:
    wanted = sorted(traced(None))
    for seed in range(20):
        assert sorted(traced(seed)) == wanted


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_keys_stay_in_order_and_nothing_is_lost_in_any_order_of_events(guarantee: str) -> None:
    started = time.monotonic()
    for seed in range(60):
        chance, calls = random.Random(seed), 0

        async def work(value: int, chance: random.Random = chance) -> int:
            nonlocal calls
            calls += 1
            await asyncio.sleep(chance.choice([0, 0.01, 0.5]))
            if calls in {5, 11} and chance.random() < 0.5:
                raise ConnectionError("reset")
            return value

        builder = StreamBuilder("t", guarantee=guarantee)  # type: ignore[arg-type]
        stream = builder.from_collection([], name="source", partitions=2).map(work, name="work", concurrency=4)
        stream.map(lambda value: value, name="after")
        with TopologyDriver(builder, seed=seed) as driver:
            for number in range(12):
                driver.send(number, key=f"k{number % 3}")
                if number == 6:
                    driver.fail_next("after", Crash(after=bool(seed % 2)))
            driver.advance("5m")
            driver.advance(5)
            found: dict[str, list[int]] = defaultdict(list)
            seen: set[str] = set()
            for record in driver.records("after"):
                if record.id not in seen:
                    seen.add(record.id)
                    found[str(record.key)].append(record.value)
            assert sorted(number for numbers in found.values() for number in numbers) == list(range(12)), seed
            assert all(numbers == sorted(numbers) for numbers in found.values()), (seed, found)
            if guarantee == "exactly_once":
                assert len(driver.records("after")) == 12, seed
            assert sum(driver.lag().values()) == 0, seed
    assert time.monotonic() - started < 60  # hundreds of them run in seconds


def test_a_race_is_found_by_some_seed_and_comes_back_with_it() -> None:
    def ends(seed: int) -> int:
        with TopologyDriver(racy(), seed=seed) as driver:
            driver.send_all(range(6))
            driver.advance(1)
            return int(max(driver.outputs("work")))

    found = {seed: ends(seed) for seed in range(30)}
    assert len(set(found.values())) > 1
    assert all(ends(seed) == total for seed, total in list(found.items())[:5])


def test_the_seed_is_told_where_a_test_fails() -> None:
    with pytest.raises(ValueError, match="the test's own") as caught, TopologyDriver(racy(), seed=41):
        raise ValueError("the test's own")
    assert caught.value.__notes__ == ["TopologyDriver(seed=41): the same seed gives the same order again"]


def test_the_fixture_tells_it_in_the_report(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from sage.graph.builder import StreamBuilder

        def test_it(sage_driver):
            builder = StreamBuilder("t")
            builder.from_collection([], name="source").map(str, name="work")
            sage_driver(builder, seed=1234).send(1)
            assert False

        def test_that(sage_driver):
            sage_driver
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*TopologyDriver(seed=1234): the same seed gives the same order again*"])


def test_ready_tasks_change_places_and_callbacks_keep_theirs() -> None:
    def run(seed: int) -> tuple[list[str], list[str]]:
        loop = ShuffledLoop(ManualClock(), random.Random(seed))
        called: list[str] = []
        ran: list[str] = []

        async def task(name: str) -> None:
            ran.append(name)

        for number in range(6):
            loop.create_task(task(f"task {number}"))
            loop.call_soon(called.append, f"call {number}")
        loop.run_until_idle()
        loop.close()
        return ran, called

    orders = {tuple(run(seed)[0]) for seed in range(20)}
    assert len(orders) > 10
    assert all(sorted(order) == [f"task {number}" for number in range(6)] for order in orders)
    assert run(3)[1] == [f"call {number}" for number in range(6)]


def test_stirring_ends_when_nothing_moves_or_when_it_is_over() -> None:
    left = [3, 2]

    def mover(place: int) -> bool:
        left[place] -= 1
        return left[place] >= 0

    assert stir([lambda: mover(0), lambda: mover(1)], random.Random(1), lambda: False)
    assert all(count < 0 for count in left)
    assert not stir([lambda: True], random.Random(1), lambda: True)


def test_a_cassette_answers_in_a_driven_topology(sage_driver: MakeDriver, pytester: pytest.Pytester) -> None:
    from sage.operators import OpenAIGenerator
    from sage.testing import CassetteChatModel, ScriptedChatModel

    builder = StreamBuilder("t")
    builder.from_collection([], name="source").map(OpenAIGenerator, {"model": "m"}, name="generate")
    path = pytester.path / "c.json"
    asked = {"messages": [{"role": "user", "content": "How many days?"}]}
    recording = CassetteChatModel(path, "once", ScriptedChatModel(["20 days."]))
    first = sage_driver(builder, {"generate": recording})
    first.send(asked)
    again = sage_driver(builder, {"generate": CassetteChatModel(path)})
    again.send(asked)
    assert again.outputs("generate") == first.outputs("generate")
    assert again.outputs("generate")[0]["answer"] == "20 days."
