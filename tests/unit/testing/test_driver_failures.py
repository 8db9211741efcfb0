"""The topology driver: time, failures, crashes, commits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage.errors import InvalidTopology, NotFound, StageStopped, UnknownName
from sage.graph.builder import StreamBuilder
from sage.model.partition import TopicPartition
from sage.spec.component import Operator
from sage.spec.context import Context, OpenContext
from sage.testing import TopologyDriver
from tests.unit.testing.driven import MakeDriver, double, later, numbers, simple

# --------------------------------------------------------------------------------------- time and failures


def test_nothing_happens_before_its_time(sage_driver: MakeDriver) -> None:
    driver = sage_driver(numbers())
    driver.send(1)
    driver.advance(29)
    assert driver.outputs("later") == []
    driver.advance(1)
    assert driver.outputs("later") == [3]


def test_micro_batches_fill_or_their_time_comes(sage_driver: MakeDriver) -> None:
    seen: list[list[int]] = []

    def together(values: list[int]) -> list[int]:
        seen.append(values)
        return values

    builder = StreamBuilder("t")
    builder.from_collection([], name="source").map_batches(together, max_size=2, max_wait="10s", name="work")
    driver = sage_driver(builder)
    driver.send(1)
    assert seen == []
    driver.send(2)
    assert seen == [[1, 2]]
    driver.send(3)
    driver.advance("11s")
    assert seen == [[1, 2], [3]]


@pytest.mark.parametrize("function", [double, later])
def test_a_failure_on_demand_is_retried_like_a_real_one(sage_driver: MakeDriver, function: Any) -> None:
    driver = sage_driver(simple(function))
    driver.fail_next("work", ConnectionError("reset"), times=2)
    driver.send(1)
    driver.advance("1m")
    assert driver.outputs("work") == [2]
    assert driver.dead_letters() == []


def test_a_failure_on_demand_kills_one_record_like_a_real_one(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple())
    driver.send(1)
    driver.fail_next("work", KeyError("documents"))
    driver.send({"id": 7}, key="k", headers={"tenant": "a"})
    driver.send(3)
    assert driver.outputs("work") == [2, 6]
    (dead,) = driver.dead_letters()
    assert (dead.value, dead.key, dead.step, dead.error, dead.message, dead.attempts) == (
        b'{"id":7}', b"k", "work", "KeyError", "'documents'", 1,
    )  # fmt: skip
    headers = dict(dead.headers)
    assert headers["tenant"] == b"a"
    assert (headers["__connect.errors.topic"], headers["__connect.errors.offset"]) == (b"t.source", b"1")


def test_bytes_that_are_no_json_become_a_dead_letter_of_the_step_that_would_have_read_them(
    sage_driver: MakeDriver,
) -> None:
    driver = sage_driver(simple())
    driver.send(b"{broken")
    (dead,) = driver.dead_letters()
    assert (dead.value, dead.step, dead.error) == (b"{broken", "work", "DecodeFailure")
    assert driver.outputs("source") == [b"{broken"]


def test_failures_are_made_where_there_is_code(sage_driver: MakeDriver) -> None:
    driver = sage_driver(numbers())
    for step in ("source", "out"):
        with pytest.raises(InvalidTopology, match=f"step '{step}' has no code that could fail"):
            driver.fail_next(step, KeyError("x"))
    with pytest.raises(UnknownName):
        driver.fail_next("nobody", KeyError("x"))


def test_branches_keys_and_flatmaps_can_fail_too(sage_driver: MakeDriver) -> None:
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source").flatmap(lambda v: [v, v], name="twice")
    stream.key_by(lambda v: v, name="keyed").route({"odd": lambda v: v % 2}, default="even", name="sort")
    driver = sage_driver(builder)
    for step in ("twice", "keyed", "sort"):
        driver.fail_next(step, ValueError(step))
        driver.send(1)
    assert [(dead.step, dead.message) for dead in driver.dead_letters()] == [
        ("twice", "twice"), ("keyed", "keyed"), ("sort", "sort"),
    ]  # fmt: skip
    assert len(driver.outputs("sort")) == 2


def test_a_stage_that_stops_raises_here_and_goes_on_after_a_crash(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple(on_error="fail"))
    driver.send(1)
    driver.fail_next("work", ValueError("no"))
    with pytest.raises(StageStopped, match=r'step "work" at t\.source-0@1: ValueError: no'):
        driver.send(2)
    assert driver.lag() == {"work": 1}
    with pytest.raises(StageStopped):
        driver.advance(1)
    driver.crash()
    assert driver.outputs("work") == [2, 4]
    assert driver.lag() == {"work": 0}


def test_a_step_that_cannot_be_opened_says_so_at_the_first_send() -> None:
    class Closed(Operator[int, int]):
        async def open(self, ctx: OpenContext) -> None:
            raise NotFound("no collection 'handbook'")

        def process(self, value: int, ctx: Context) -> int:
            return value

    with TopologyDriver(simple(Closed)) as driver, pytest.raises(NotFound, match='t step "work": no collection'):
        driver.send(1)


def test_what_a_forgotten_task_raises_fails_the_test_instead_of_a_log_line(sage_driver: MakeDriver) -> None:
    async def careless(value: int) -> int:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        return value

    driver = sage_driver(simple(careless))
    with pytest.raises(ZeroDivisionError):
        driver.send(1)


def test_the_brokers_own_faults_are_at_hand(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple())
    driver.send(1)
    driver.broker.fail_next_delivery("t.work")
    driver.send(2)
    driver.advance(1)
    assert driver.outputs("work") == [2, 4]
    assert driver.lag() == {"work": 0}


# ------------------------------------------------------------------------------------- crashes and commits


def test_lag_goes_to_nothing_when_all_is_done_and_not_before(sage_driver: MakeDriver) -> None:
    driver = sage_driver(numbers())
    driver.send(1)
    driver.send(2)
    assert driver.lag() == {"double": 0, "later": 2, "big": 0}
    driver.advance(31)
    assert sum(driver.lag().values()) == 0
    assert driver.committed()["later"][TopicPartition("t.double", 0)] == 2


def test_a_crash_replays_what_was_not_committed_with_the_same_ids(sage_driver: MakeDriver) -> None:
    driver = sage_driver(numbers())
    driver.send(1)
    driver.advance(31)
    driver.send(2)
    driver.advance(10)
    driver.crash()
    assert driver.outputs("later") == [3]
    driver.advance(25)
    assert driver.outputs("later") == [3]  # it began anew, 30 s from the crash on
    driver.advance(6)
    assert driver.outputs("later") == [3, 5]
    assert [record.id for record in driver.records("later")] == [record.id for record in driver.records("double")]
    assert sum(driver.lag().values()) == 0


def test_a_crash_between_output_and_commit_gives_the_output_again(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple())
    driver.send(1)
    for _ in range(20):
        driver.broker.fail_next_commit()
    driver.send(2)
    driver.crash()
    for _ in range(20):
        driver.advance(0.1)
    assert driver.outputs("work") == [2, 4, 4]
    ids = [record.id for record in driver.records("work")]
    assert ids[1] == ids[2] != ids[0]
    assert sum(driver.lag().values()) == 0


def test_components_are_made_anew_after_a_crash_and_closed_at_the_end() -> None:
    life: list[str] = []

    class Living(Operator[int, int]):
        async def open(self, ctx: OpenContext) -> None:
            life.append("open")

        def process(self, value: int, ctx: Context) -> int:
            return value

        async def close(self) -> None:
            life.append("close")

    with TopologyDriver(simple(Living)) as driver:
        driver.send(1)
        driver.crash()
        assert life == ["open", "open"]  # who is killed closes nothing
    assert life == ["open", "open", "close"]


def test_a_component_that_cannot_be_closed_fails_the_test_that_did_not_fail() -> None:
    class Sticky(Operator[int, int]):
        def process(self, value: int, ctx: Context) -> int:
            return value

        async def close(self) -> None:
            raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match="the disk is gone"), TopologyDriver(simple(Sticky)) as driver:
        driver.send(1)
    with pytest.raises(KeyError), TopologyDriver(simple(Sticky)) as driver:
        driver.send(1)
        raise KeyError("the test's own")


# --------------------------------------------------------------------------------------------- the whole


def words(line: str) -> Iterator[str]:
    yield from line.split()


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.lists(st.sampled_from(["a", "b", "c"]), max_size=3).map(" ".join)),
            st.tuples(st.just("crash"), st.none()),
            st.tuples(st.just("fail"), st.sampled_from(["split", "slow", "count"])),
            st.tuples(st.just("refuse"), st.sampled_from(["t.split", "t.slow"])),
            st.tuples(st.just("advance"), st.sampled_from([0.01, 1, 30])),
        ),
        max_size=14,
    )
)
def test_whatever_befalls_a_topology_nothing_is_lost_and_ids_tell_replays(events: list[tuple[str, Any]]) -> None:
    async def slow(word: str) -> str:
        await asyncio.sleep({"a": 0.01, "b": 5, "c": 0}[word])
        return word

    builder = StreamBuilder("t")
    stream = builder.from_collection([], name="source", partitions=2).flatmap(
        words, name="split", retry={"attempts": 20}
    )
    stream.map(slow, name="slow", retry={"attempts": 20}).map_batches(
        lambda values: [value.upper() for value in values],
        max_size=3,
        max_wait=0.5,
        name="count",
        retry={"attempts": 20},
    )
    sent: list[str] = []
    with TopologyDriver(builder) as driver:
        for number, (event, argument) in enumerate(events):
            match event:
                case "send":
                    sent += argument.split()
                    driver.send(argument, key=f"k{number % 3}")
                case "crash":
                    driver.crash()
                case "fail":
                    driver.fail_next(argument, ConnectionError("reset"))
                case "refuse":
                    driver.broker.fail_next_delivery(argument)
                case "advance":
                    driver.advance(argument)
        driver.advance("10m")
        driver.advance(1)
        assert driver.dead_letters() == []
        assert sum(driver.lag().values()) == 0
        by_id = {record.id: record.value for record in driver.records("count")}
        assert sorted(by_id.values()) == sorted(word.upper() for word in sent)


def test_a_run_is_the_same_every_time() -> None:
    def run() -> str:
        with TopologyDriver(numbers()) as driver:
            driver.fail_next("later", ConnectionError("reset"), times=3)
            for number in range(5):
                driver.send(number)
            driver.advance("5m")
            return json.dumps([driver.outputs("big"), [record.timestamp for record in driver.records("later")],
                               driver.clock.monotonic()])  # fmt: skip

    assert run() == run()
