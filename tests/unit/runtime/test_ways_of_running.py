"""However a step is run, on the consumer's thread, awaited or in threads of its own, it does the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import orjson
import pytest

from sage.graph.builder import StreamBuilder
from sage.spec.component import Operator
from sage.spec.context import Context
from sage.testing import TopologyDriver
from tests.unit.testing.driven import MakeDriver

WAYS = ("sync", "async", "blocking")
ROWS = [{"k": "ann", "n": 1}, {"k": "bob", "n": 2}, {"k": "ann", "n": 3}]


def awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same as an async function."""

    async def later(value: Any) -> Any:
        await asyncio.sleep(0.01)
        return function(value)

    return later


def awaited_generator(function: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    """The same as an async generator."""

    async def later(value: Any, ctx: Context) -> AsyncIterator[Any]:
        for item in function(value, ctx):
            await asyncio.sleep(0.01)
            yield item

    return later


def run(driver: TopologyDriver, *steps: str) -> dict[str, list[tuple[Any, Any]]]:
    """Keys and values that come out of these."""
    for row in ROWS:
        driver.send(row, key=str(row["n"]))
    driver.advance("1m")
    assert driver.dead_letters() == []
    assert not any(driver.lag().values())
    return {step: sorted(((r.key, r.value) for r in driver.records(step)), key=str) for step in steps}


def key(value: Any) -> Any:
    return value["k"]


def big(value: Any) -> bool:
    return bool(value["n"] > 1)


def parts(value: Any, ctx: Context) -> Iterator[Any]:
    """One object, changed from one output to the next, and one that is changed after it was given away."""
    seen: list[int] = []
    for part in range(3):
        value["part"] = part
        seen.append(part)
        value["seen"] = seen
        yield value
    value["branch"] = "early"
    ctx.emit("aside", value)
    value["branch"] = "late"


def as_way(function: Callable[..., Any], way: str, wrap: Callable[..., Any] = awaited) -> tuple[Any, dict[str, Any]]:
    return (wrap(function) if way == "async" else function), ({"blocking": True} if way == "blocking" else {})


@pytest.mark.parametrize("way", WAYS)
def test_a_key_is_set_and_the_value_stays(sage_driver: MakeDriver, way: str) -> None:
    function, options = as_way(key, way)
    builder = StreamBuilder("t")
    builder.from_collection([], name="source").key_by(function, name="keyed", **options)
    wanted = sorted(((row["k"].encode(), row) for row in ROWS), key=str)  # type: ignore[attr-defined]
    assert run(sage_driver(builder), "keyed") == {"keyed": wanted}


@pytest.mark.parametrize("way", WAYS)
def test_a_route_takes_the_first_branch_that_fits_and_else_the_default(sage_driver: MakeDriver, way: str) -> None:
    function, options = as_way(big, way)
    builder = StreamBuilder("t")
    branches: Any = builder.from_collection([], name="source").route(
        {"big": function, "ann": "value.k == 'ann'", "two": "value.n == 2"}, name="sorted", **options
    )
    for name in ("big", "ann", "two", "other"):
        branches[name].map(dict, name=name)
    driver = sage_driver(builder)
    driver.send({"k": "eve", "n": 0})
    found = run(driver, "big", "ann", "two", "other")
    numbers = {name: [value["n"] for _, value in rows] for name, rows in found.items()}
    assert numbers == {"big": [2, 3], "ann": [1], "two": [], "other": [0]}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["flatmap", "process"])
def test_an_output_is_what_it_was_when_it_was_given(sage_driver: MakeDriver, kind: str, way: str) -> None:
    function, options = as_way(parts, way, awaited_generator)
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source")
    if kind == "flatmap":
        step = stream.flatmap(function, name="parts", **options)
    else:
        step = stream.key_by("k", name="keyed").process(function, name="parts", **options)
    step.branch("aside").map(dict, name="aside")
    found = run(sage_driver(builder), "parts", "aside")
    assert sorted((value["n"], value["part"], value["seen"]) for _, value in found["parts"]) == [
        (n, part, list(range(part + 1))) for n in (1, 2, 3) for part in range(3)
    ]
    assert [value["branch"] for _, value in found["aside"]] == ["early"] * 3


async def count(value: Any, ctx: Context) -> AsyncIterator[Any]:
    n = ctx.state.get("n", 0)
    await asyncio.sleep(1 / value["n"])  # the first takes longest
    ctx.state["n"] = n + 1
    yield {"k": value["k"], "count": n + 1}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_defaults_that_ask_for_no_order_leave_state_its_own(sage_driver: MakeDriver, guarantee: Any) -> None:
    builder = StreamBuilder("t", guarantee=guarantee, defaults={"ordering": "none"})
    stream: Any = builder.from_collection([], name="source")
    stream.key_by("k", name="keyed").process(count, name="count")
    found = run(sage_driver(builder), "count")["count"]
    assert sorted((value["k"], value["count"]) for _, value in found) == [("ann", 1), ("ann", 2), ("bob", 1)]


def remind(value: Any, ctx: Context) -> Iterator[Any]:
    ctx.timer.set("later", after=1)
    yield from ()


def ring(name: str, ctx: Context) -> Iterator[Any]:
    given = {"name": name}
    ctx.emit("aside", given)
    given["main"] = "yes"
    yield given


async def ring_awaited(name: str, ctx: Context) -> AsyncIterator[Any]:
    for item in ring(name, ctx):
        await asyncio.sleep(0.01)
        yield item


@pytest.mark.parametrize(
    ("on_timer", "options"),
    [(ring, {}), (ring_awaited, {}), (ring, {"blocking": True}), (ring_awaited, {"blocking": True})],
    ids=["sync", "async", "blocking", "async beside blocking"],
)
def test_a_timer_gives_outputs_and_branches(sage_driver: MakeDriver, on_timer: Any, options: dict[str, Any]) -> None:
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source")
    step = stream.key_by("k", name="keyed").process(remind, name="remind", on_timer=on_timer, **options)
    step.branch("aside").map(dict, name="aside")
    found = run(sage_driver(builder), "remind", "aside")
    assert found == {
        "remind": [(name, {"name": "later", "main": "yes"}) for name in (b"ann", b"bob")],
        "aside": [(name, {"name": "later"}) for name in (b"ann", b"bob")],
    }


class Counting(Operator[Any, Any]):
    """An operator that takes batches, used where there is state."""

    async def process(self, value: Any, ctx: Context) -> AsyncIterator[Any]:
        ctx.state["n"] = ctx.state.get("n", 0) + 1
        yield ctx.state["n"]

    async def process_batch(self, values: list[Any], contexts: list[Context]) -> list[Any]:
        raise AssertionError("state is one key's, and a batch many keys'")

    async def on_timer(self, name: str, ctx: Context) -> AsyncIterator[Any]:
        yield name


def test_an_operator_that_takes_batches_is_given_its_state_record_by_record(sage_driver: MakeDriver) -> None:
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source")
    stream.key_by("k", name="keyed").process(Counting, name="count")
    driver = sage_driver(builder)
    driver.send_all(ROWS)
    driver.advance("1m")
    assert (sorted(driver.outputs("count")), driver.dead_letters()) == ([1, 1, 2], [])


@pytest.mark.parametrize("kind", ["filter", "route"])
def test_a_promise_that_a_thread_gives_is_awaited(sage_driver: MakeDriver, kind: str) -> None:
    later = awaited(big)
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source")
    if kind == "route":
        stream.route({"big": lambda value: later(value)}, name="work", blocking=True).big.map(dict, name="kept")  # noqa: PLW0108
    else:
        stream.filter(lambda value: later(value), name="kept", blocking=True)  # noqa: PLW0108
    found = run(sage_driver(builder), "kept")["kept"]
    assert [value["n"] for _, value in found] == [2, 3]


@pytest.mark.filterwarnings("error")  # of a coroutine that was never awaited
@pytest.mark.parametrize("kind", ["filter", "key_by", "route"])
def test_a_promise_in_place_of_a_condition_fails_its_record(sage_driver: MakeDriver, kind: str) -> None:
    later = awaited(big)
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source")
    if kind == "route":
        stream.route({"big": lambda value: later(value)}, name="work").big.map(dict)  # noqa: PLW0108
    else:
        getattr(stream, kind)(lambda value: later(value), name="work")  # noqa: PLW0108
    driver = sage_driver(builder)
    driver.send(ROWS[0])
    (letter,) = driver.dead_letters()
    assert "async def" in letter.message


def test_a_time_out_that_can_not_be_kept_is_told_when_the_step_begins(
    sage_driver: MakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source")
    stream.map(dict, name="quick", timeout=3).map(dict, name="waits", timeout=3, blocking=True)
    with caplog.at_level(logging.WARNING, logger="sage.runtime"):
        driver = sage_driver(builder)
        driver.send(ROWS[0])
        driver.advance("1m")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ['t step "quick"']
    assert "blocking=True" in caplog.text
    assert orjson.dumps(driver.outputs("waits")) == orjson.dumps([ROWS[0]])
