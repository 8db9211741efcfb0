"""Loops with a bound, error branches, predicates in CEL, and values diverted to a branch."""

from __future__ import annotations

from typing import Any

import pytest

from sage.graph.builder import StreamBuilder
from sage.spec.context import Context
from sage.testing import TopologyDriver


def builder(guarantee: Any = "at_least_once") -> StreamBuilder:
    return StreamBuilder("t", guarantee=guarantee)


def agent(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "n": value["n"] + 1}


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_a_record_that_goes_around_too_often_is_dead(guarantee: str) -> None:
    env = builder(guarantee)
    loop = env.from_topic("in").loop(max_hops=3)
    routed = loop.map(agent, name="agent").route({"again": "n < goal"}, default="done")
    loop.close(routed.again)
    routed.done.map(lambda value: value, name="end")
    with TopologyDriver(env) as driver:
        driver.send({"n": 0, "goal": 3})
        driver.send({"n": 0, "goal": 9})
        driver.advance("10s")
        assert driver.outputs("end") == [{"n": 3, "goal": 3}]
        (dead,) = driver.dead_letters()
    assert "max_hops is 3" in dead.message


def test_a_failed_record_goes_to_the_branch_that_somebody_reads_and_not_to_the_dead_letters() -> None:
    def check(value: dict[str, Any]) -> dict[str, Any]:
        if value["n"] < 0:
            raise ValueError("negative")
        return value

    env = builder()
    checked = env.from_topic("in").map(check, name="check")
    checked.map(lambda value: value, name="good")
    checked.branch("error").map(lambda value: {"failed": value}, name="bad")
    with TopologyDriver(env) as driver:
        driver.send({"n": 1})
        driver.send({"n": -1})
        driver.advance(1)
        assert driver.outputs("good") == [{"n": 1}]
        assert driver.outputs("bad") == [{"failed": {"n": -1}}]
        assert driver.dead_letters() == []


def test_failed_text_beside_json_can_be_read_from_the_error_branch() -> None:
    def fail(value: Any) -> None:
        raise ValueError(value)

    env = builder()
    texts, jsons = env.from_topic("texts", format="str", name="texts"), env.from_topic("jsons", name="jsons")
    texts.union(jsons).map(fail, name="work").branch("error").map(lambda value: value, name="again")
    with TopologyDriver(env) as driver:
        for value in ("hello", None, b"\xff"):
            driver.send(value, to="texts")
        driver.send({"a": 1}, to="jsons")
        assert driver.outputs("again") == ["hello", None, {"a": 1}]
        (dead,) = driver.dead_letters()
    assert (dead.step, dead.value, dead.error) == ("again", b"\xff", "DecodeFailure")


def test_a_predicate_that_meets_a_missing_field_fails_its_record_and_names_itself() -> None:
    env = builder()
    env.from_topic("in").route({"big": "size > 3"}, default="other", name="split").big.map(agent, name="next")
    with TopologyDriver(env) as driver:
        driver.send({"n": 1})
        (dead,) = driver.dead_letters()
    assert "branch big" in dead.message
    assert "size > 3" in dead.message


def test_a_predicate_says_which_part_of_a_value_is_not_there() -> None:
    env = builder()
    env.from_topic("in").route({"big": "value.size.width > 3"}, default="other", name="split")
    with TopologyDriver(env) as driver:
        driver.send({"size": {"height": 1}})
        (dead,) = driver.dead_letters()
    assert "there is no 'width'; ask has() first" in dead.message


def test_a_diverted_value_takes_the_place_of_the_output_where_its_branch_is_read() -> None:
    def look(value: int, ctx: Context) -> int:
        if value == 0:
            ctx.divert("empty", "nothing")
        return value

    env = builder()
    looked = env.from_topic("in").map(look, name="look")
    looked.map(lambda value: value, name="main")
    looked.branch("empty").map(lambda value: value, name="other")
    unread = builder()
    unread.from_topic("in").map(look, name="look").map(lambda value: value, name="main")
    with TopologyDriver(env) as driver:
        driver.send(0)
        driver.send(1)
        assert (driver.outputs("main"), driver.outputs("other")) == ([1], ["nothing"])
    with TopologyDriver(unread) as driver:
        driver.send(0)
        assert driver.outputs("main") == [0]
