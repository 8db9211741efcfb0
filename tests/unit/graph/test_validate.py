import re
from typing import Any

import pytest
from pydantic import BaseModel

from sage.errors import InvalidTopology, SageError
from sage.graph.topology import Input, Origin, Step, Topology
from sage.graph.validate import ordered, problems_of, validated
from sage.spec.component import Operator
from sage.spec.options import BatchPolicy, Options


def clean(value: str) -> str:
    return value


async def later(value: str) -> str:
    return value


class Batched(Operator[str, str]):
    class Config(BaseModel): ...

    def process(self, value: str, ctx: Any) -> str:
        return value

    async def process_batch(self, values: Any, contexts: Any) -> Any:
        return values


def step(name: str, *inputs: str, kind: Any = "map", target: Any = clean, **rest: Any) -> Step:
    return Step(name, kind, target, inputs=tuple(Input(*text.split(".")) for text in inputs), **rest)


def source(name: str = "in", topic: str = "given") -> Step:
    return step(name, kind="source", target="topic", config={"topic": topic, "format": "json"})


def to(name: str, topic: str, *inputs: str) -> Step:
    return step(name, *inputs, kind="sink", target="topic", config={"topic": topic})


def route(name: str, *inputs: str, **branches: Any) -> Step:
    return step(name, *inputs, kind="route", target=None, branches=branches, default_branch="other")


def told(*steps: Step, name: str = "t", **rest: Any) -> list[str]:
    return [str(problem) for problem in problems_of(Topology(name, steps, **rest))]


def test_a_sound_topology_is_put_in_order() -> None:
    steps = (to("out", "there", "b"), step("b", "a"), step("a", "in"), source())
    assert [s.name for s in validated(Topology("t", steps)).steps] == ["in", "a", "b", "out"]
    assert [s.name for s in ordered([source("x"), source("y")])] == ["x", "y"]


def test_an_edge_that_nobody_reads_is_fine() -> None:
    assert told(source(), step("a", "in"), route("r", "a", spam=clean)) == []


def test_the_default_may_be_one_of_the_branches() -> None:
    split = step("r", "in", kind="route", target=None, branches={"x": clean}, default_branch="x")
    assert told(source(), split, step("a", "r.x")) == []


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([source("input"), step("a", "inptu")], "step 'a': there is no step 'inptu'; did you mean input? [SAGE102]"),
        ([source(), step("a")], "step 'a': reads from nothing"),
        ([source(), step("a", "in", "in")], "reads in 2 times"),
        ([source(), to("out", "x", "in"), step("a", "out")], "out is a sink; nothing can be read from it"),
        (
            [
                source(),
                step("b", "in"),
                source("s2", "q"),
                step("s3", "b", kind="source", target="topic", config={"topic": "z"}),
            ],
            "a source reads from no step; found b",
        ),
        (
            [source(), route("r", "in", spam=clean), step("a", "r")],
            "r is a route; read one of its branches: r.spam",
        ),
        ([source(), route("r", "in", spam=clean), step("a", "r.span")], "r has no branch 'span'; did you mean spam?"),
        ([source(), step("f", "in", kind="filter"), step("a", "f.x")], "f has no branches; read f"),
        ([source(), step("f", "in"), step("a", "f.X y")], "branch name 'X y': only a-z"),
        ([source(), step("a", "in"), step("a", "in")], "step name 'a' is taken by step 'a'"),
        ([source(), step("dlq", "in")], "step name 'dlq' is reserved"),
        ([source(), route("r", "in", retry=clean)], "branch name 'retry' is reserved"),
        ([source(), step("a", "c"), step("b", "a"), step("c", "b"), step("d", "c")], "form a cycle: a -> b -> c -> a"),
        ([source(), step("a", "in", "a")], "form a cycle: a -> a"),
        ([source(), step("a", "in", target=later, options=Options(blocking=True))], "this is async; leave it out"),
        (
            [source(), step("a", "in", options=Options(batch=BatchPolicy()))],
            "batch is for operators with",
        ),
        (
            [source(), step("a", "in", kind="process", options=Options(ordering="none"))],
            "ordering: none is not for steps that keep state",
        ),
    ],
)
def test_what_is_wrong_with_steps_is_told(steps: list[Step], message: str) -> None:
    problems = told(*steps)
    assert any(message in problem for problem in problems), problems


def test_a_cycle_is_told_once_and_steps_behind_it_are_not_blamed() -> None:
    problems = told(source(), step("a", "b"), step("b", "a"), step("behind", "b"))
    assert len(problems) == 1
    assert re.search(r"cycle: (a -> b -> a|b -> a -> b)", problems[0])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            [source(), route("r", "in", x=clean), step("r-x", "in")],
            "step r-x and branch r.x would share the topic",
        ),
        (
            [source(), step("a", "in"), to("out", "t.a", "a")],
            "can't write topic t.a: t.a is step a's; use another",
        ),
        ([source(), step("a_b", "in"), to("out", "t.a.b", "in")], "can't write topic t.a.b: t.a_b is step a_b's"),
        ([source("in", "t.a"), step("a", "in")], "can't read topic t.a: t.a is step a's; read from"),
        (
            [source(), step("a", "in"), step("a_retry", "a")],
            "step a_retry would share its topic t.a_retry with that of a",
        ),
        ([source(), step("a_journal", "in"), step("a", "in")], "t.a.journal: Kafka takes . and _ for the same"),
        (
            [source(), step("a", "in"), to("out", "t.a.retry", "a")],
            "can't write topic t.a.retry: t.a.retry is step a's",
        ),
        ([source(), step("a", "in"), source("more", "t.a.changelog")], "can't read topic t.a.changelog"),
        ([source(), to("out", "t.dlq", "in")], "can't write topic t.dlq: t.dlq is SAGE's own topic's"),
        ([source("in", "a.b"), to("out", "a_b", "in")], "topics a.b and a_b are one to Kafka"),
        ([source(), to("out", "__sage.topologies", "in")], "is Kafka's or SAGE's own"),
        ([source("in", "a b")], "'a b' is not a topic's name"),
        ([source(), step("a" * 250, "in")], "is too long"),
    ],
)
def test_topics_that_would_be_mixed_up_are_told(steps: list[Step], message: str) -> None:
    assert any(message in problem for problem in told(*steps)), told(*steps)


def test_topics_written_and_read_by_name_are_fine() -> None:
    assert told(source(), to("out", "middle", "in"), source("again", "middle"), to("end", "end", "again")) == []


def test_operators_with_batches_take_the_option() -> None:
    assert told(source(), step("a", "in", kind="operator", target=Batched, options=Options(batch=BatchPolicy()))) == []


def test_kafka_properties_and_moves_are_checked() -> None:
    problems = told(source(), name="t", kafka={"group.id": "x"}, moved={"in": "nowhere"})
    assert problems == [
        "kafka.group.id: is set by SAGE, since delivery hangs on it; remove it [SAGE101]",
        "moved.in: in is still a step; remove it, or the move [SAGE101]",
        "moved.in: there is no step 'nowhere'; steps: in [SAGE102]",
    ]


def test_problems_stand_at_their_place_and_come_all_at_once() -> None:
    origin = Origin("rag.yaml", 9, 3, "steps.a")
    places = {"from": Origin("rag.yaml", 9, 20, "steps.a.from")}
    topology = Topology("T", (step("a", "b", origin=origin, places=places),))
    with pytest.raises(InvalidTopology) as raised:
        validated(topology)
    assert len(raised.value.problems) == 2
    assert (
        str(raised.value).splitlines()[1]
        == "rag.yaml:9:20 steps.a.from: there is no step 'b'; there are no steps [SAGE102]"
    )
    assert all(isinstance(problem, SageError) for problem in raised.value.problems)


def test_one_problem_is_raised_as_itself() -> None:
    with pytest.raises(InvalidTopology) as raised:
        validated(Topology("t", (source(), step("a"))))
    assert raised.value.problems == (raised.value,)
    assert raised.value.exit_code == 3
