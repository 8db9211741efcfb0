"""What a new plan changes is said exactly, with what it does to order and state, and what it needs a flag for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, Field

from sage.graph import StreamBuilder
from sage.graph.topology import Topology
from sage.plan.decoding import plan_from_json
from sage.plan.diff import ALLOW_ORPHANS, ALLOW_STATE_CHANGE, REPARTITION, PlanDiff, diff_plans, state_problem
from sage.plan.handover import Handover, Inheritance, handover
from sage.plan.plan import Plan
from sage.plan.planner import compile_plan
from sage.spec.component import Operator, Source
from tests.unit.plan.test_planner_properties import planned, topologies


class Retrieve(Operator[Any, Any]):
    class Config(BaseModel):
        top_k: int = 2
        api_key: str | None = Field(default=None, json_schema_extra={"secret": True})

    def process(self, value: Any, ctx: Any) -> Any:
        return value


class Lines(Source[Any]): ...


class Count(BaseModel):
    n: int = 0


class Wider(BaseModel):
    n: int = 0
    name: str = ""


class Required(BaseModel):
    n: int
    user: str


def say(value: Any) -> Any:
    return value


def clean(value: Any) -> Any:
    return value


def user(value: Any) -> Any:
    return value["user"]


def count(value: Any, ctx: Any) -> Any:
    yield value


def environment(**options: Any) -> StreamBuilder:
    return StreamBuilder("qa", environ={}, **options)


def asking(config: Mapping[str, Any] | None = None, *, steps: tuple[str, ...] = ("say",), **options: Any) -> Plan:
    """``in`` -> retrieve -> each of ``steps``, a stage each -> ``out``."""
    env = environment()
    stream = env.from_topic("in").map(Retrieve, config, name="retrieve", **options)
    for name in steps:
        stream = stream.map(say, name=name, partitions=1)
    stream.to("out")
    return compile_plan(env.build())


def counting(
    *,
    partitions: int = 2,
    state: Any = Count,
    key: Any = "user",
    step: str = "count",
    moved: dict[str, str] | None = None,
) -> Plan:
    env = environment()
    keyed = env.from_topic("in").map(clean, name="clean").key_by(key, name="by", partitions=partitions)
    keyed.process(count, state=state, name=step).to("out")
    return compile_plan(replace(env.build(), moved=moved or {}))


def found(plan: Plan) -> dict[str, int]:
    """The topics of a plan as a broker has them."""
    return {topic.name: topic.partitions or 4 for topic in plan.topics} | dict.fromkeys(plan.external, 4)


def between(old: Plan, new: Plan) -> tuple[PlanDiff, Handover]:
    return diff_plans(old, new), handover(old, new, found(old))


@given(topologies())
@settings(max_examples=50, deadline=None)
def test_a_plan_does_not_differ_from_itself_stored(topology: Topology) -> None:
    plan = planned(topology)
    stored = plan_from_json(plan.to_json())
    for old, new in ((plan, plan), (stored, plan), (plan, stored)):
        assert diff_plans(old, new).is_empty
        assert handover(old, new, found(old)) == Handover()


@given(topologies(), topologies())
@settings(max_examples=50, deadline=None)
def test_of_any_two_plans_everything_that_leaves_was_there_and_waits_for_no_circle(
    one: Topology, other: Topology
) -> None:
    old, new = planned(one), planned(other)
    diff, hand = between(old, new)
    assert diff.is_empty == (old.hash == new.hash)
    assert not set(hand.held) & set(hand.leaving)
    assert set(hand.held) | set(hand.leaving) <= set(old.by_name)
    left: set[str] = set()
    while left != set(hand.leaving):
        ready = {stage for stage, after in hand.leaving.items() if set(after) <= left}
        assert ready > left, "stages wait for each other"
        left = ready
    json.dumps(diff.to_json())


def test_a_new_topology_is_counted() -> None:
    diff = diff_plans(None, asking())
    assert diff.created
    assert diff.summary().startswith("+ 4 steps, + 5 topics")


def test_a_changed_option_is_one_line_that_says_what_it_does() -> None:
    diff, hand = between(asking({"top_k": 2}), asking({"top_k": 3}))
    assert diff.text() == ("~ retrieve.config.top_k 2 -> 3; no topic or state change; rolling restart of 1 step")
    assert diff.restarts == ("retrieve",)
    assert diff.needs == frozenset()
    assert not hand.drains


def test_secrets_are_shown_as_their_variables_only() -> None:
    diff = diff_plans(asking({"api_key": "${OLD}"}), asking({"api_key": "${NEW}"}))
    assert "retrieve.config.api_key ${OLD} -> ${NEW}" in diff.text()


def test_code_that_changed_is_told_also_where_the_plan_does_not_see_it() -> None:
    diff = diff_plans(asking(), asking(), code_changed=frozenset({"say"}))
    assert [entry.text for entry in diff.entries] == ["say.code changed"]
    assert diff.restarts == ("say",)


def test_a_step_put_between_two_others_goes_on_where_its_reader_stood() -> None:
    diff, hand = between(asking(steps=("say",)), asking(steps=("shorten", "say")))
    assert {str(entry) for entry in diff.entries if entry.kind == "step"} == {
        "+ step shorten (map)",
        "~ say.from retrieve -> shorten; what it reads now is drained first",
    }
    assert hand.leaving == {"say": ()}
    assert hand.held == ("retrieve",)
    assert hand.inherits == (Inheritance("qa.retrieve", ("qa.say",), "qa.shorten"),)


def test_a_removed_step_needs_a_flag_or_a_place_where_it_went() -> None:
    diff, hand = between(asking(steps=("shorten", "say")), asking(steps=("say",)))
    assert diff.needs == {ALLOW_ORPHANS}
    assert "group qa.shorten would be orphaned" in diff.text()
    assert hand.leaving == {"shorten": (), "say": ("shorten",)}
    assert hand.held == ("retrieve",)
    assert hand.inherits == (Inheritance("qa.retrieve", ("qa.shorten",), "qa.say"),)


def test_a_renamed_step_takes_offsets_and_state_along() -> None:
    diff, hand = between(counting(), counting(step="tally", moved={"count": "tally"}))
    assert diff.needs == frozenset()
    (renamed,) = (entry for entry in diff.entries if entry.mark == ">")
    assert str(renamed) == ("> step count -> tally; offsets and state go along; what is on its way is drained first")
    assert not [entry for entry in diff.entries if entry.kind == "topic"]
    assert hand.leaving == {"count": ()}
    assert hand.held == ("by",)
    assert hand.inherits == (Inheritance("qa.by", ("qa.count",), "qa.tally"),)
    assert hand.changelogs == {"qa.count.changelog": "qa.tally.changelog"}


def test_a_move_that_was_made_by_an_earlier_deploy_is_no_change() -> None:
    done = counting(step="tally", moved={"count": "tally"})
    diff, hand = between(done, counting(step="tally", moved={"count": "tally"}))
    assert diff.is_empty
    assert hand == Handover()


def test_a_renamed_source_takes_its_positions_along() -> None:
    def plan(name: str, moved: dict[str, str]) -> Plan:
        env = environment()
        env.from_source(Lines, name=name).map(say, name="say").to("out")
        return compile_plan(replace(env.build(), moved=moved))

    diff, hand = between(plan("lines", {}), plan("rows", {"lines": "rows"}))
    assert diff.needs == frozenset()
    assert hand.sources == {"lines": "rows"}
    assert hand.leaving == {"lines": (), "say": ("lines",)}


def test_more_partitions_of_a_keyed_edge_need_a_flag_and_move_state_along() -> None:
    diff, hand = between(counting(partitions=2), counting(partitions=6))
    assert diff.needs == {REPARTITION}
    assert "topic qa.by 2 -> 6 partitions; keys move to other partitions" in diff.text()
    assert "state is moved along" in diff.text()
    assert hand.leaving == {"count": ()}
    assert hand.held == ("by",)
    assert hand.grows == {"qa.by": 6, "qa.count.retry": 6, "qa.count.changelog": 6}
    assert hand.rekeyed == ("qa.count.changelog",)


def test_an_edge_without_order_grows_in_place() -> None:
    def plan(partitions: int) -> Plan:
        env = environment(defaults={"ordering": "none"})
        env.from_topic("in").map(Retrieve, name="retrieve", partitions=partitions).map(
            say, name="say", partitions=1
        ).to("out")
        return compile_plan(env.build())

    diff, hand = between(plan(2), plan(4))
    assert diff.needs == frozenset()
    assert not hand.drains
    assert hand.grows == {"qa.retrieve": 4, "qa.say.retry": 4}


def test_a_topic_that_is_only_written_stays_as_it_is() -> None:
    def wide(partitions: int) -> Plan:
        builder = StreamBuilder("t", defaults={"partitions": partitions})
        builder.from_topic("in").map(str, name="work").to("out")
        return compile_plan(builder.build())

    diff = diff_plans(wide(4), wide(6))
    assert [str(entry) for entry in diff.entries if entry.kind == "topic"] == [
        "~ topic out 4 -> 6 partitions; it stays as it is: its readers may rely on its partitions"
    ]
    assert handover(wide(4), wide(6), {"in": 4, "out": 4}).grows == {}


def test_fewer_partitions_are_no_change_of_a_topic() -> None:
    diff, hand = between(counting(partitions=4), counting(partitions=2))
    assert "it keeps 4" in diff.text()
    assert diff.needs == frozenset()
    assert hand.grows == {}


def test_another_key_in_front_of_state_needs_a_flag() -> None:
    diff = diff_plans(counting(key="user"), counting(key=user))
    assert diff.needs == {ALLOW_STATE_CHANGE}
    assert "count keeps its state under the old ones" in diff.text()


def keyed(by: str, key: str = "user", *, moved: Mapping[str, str] = {}) -> Plan:
    """``in`` -> key_by ``key`` in step ``by`` -> count -> ``out``."""
    env = environment()
    env.from_topic("in").key_by(key, name=by).process(count, state=Count, name="count").to("out")
    return compile_plan(replace(env.build(), moved=dict(moved)))


def test_another_step_that_gives_other_keys_in_front_of_state_needs_a_flag() -> None:
    diff = diff_plans(keyed("by"), keyed("by-account", "account"))
    assert diff.needs == {ALLOW_ORPHANS, ALLOW_STATE_CHANGE}
    assert "~ count.keys of by -> by-account; records get other keys: count keeps its state under the old ones" in (
        diff.text()
    )


def test_the_same_key_from_a_step_of_another_name_is_no_other_key() -> None:
    assert diff_plans(keyed("by"), keyed("by-user")).needs == {ALLOW_ORPHANS}
    assert diff_plans(keyed("by"), keyed("by-user", moved={"by": "by-user"})).needs == frozenset()


def test_of_two_steps_that_move_to_one_the_second_is_removed() -> None:
    def plan(*steps: str, moved: Mapping[str, str] = {}) -> Plan:
        env = environment()
        for number, name in enumerate(steps):
            keyed = env.from_topic(f"in-{number}").key_by("user", name=f"by-{number}")
            keyed.process(count, state=Count, name=name).to(f"out-{number}")
        return compile_plan(replace(env.build(), moved=dict(moved)))

    diff, hand = between(plan("left", "right"), plan("both", moved={"left": "both", "right": "both"}))
    assert ALLOW_ORPHANS in diff.needs
    assert "state qa.right.changelog would be orphaned" in diff.text()
    assert hand.changelogs == {"qa.left.changelog": "qa.both.changelog"}


@pytest.mark.parametrize(("state", "needs"), [(Wider, frozenset()), (Required, {ALLOW_STATE_CHANGE})])
def test_state_that_can_not_be_read_any_more_needs_a_flag(state: Any, needs: set[str]) -> None:
    assert diff_plans(counting(), counting(state=state)).needs == needs


def test_state_problems_name_the_field() -> None:
    def stored(model: type[BaseModel] | None) -> dict[str, Any]:
        return {"model": "m:M", "schema": None if model is None else model.model_json_schema()}

    class Text(BaseModel):
        n: str = ""

    assert state_problem(stored(Count), stored(Wider)) is None
    assert state_problem(stored(Wider), stored(Count)) is None
    assert state_problem(None, stored(Count)) is None
    assert "user is required" in str(state_problem(stored(Count), stored(Required)))
    assert "n was" in str(state_problem(stored(Count), stored(Text)))
    assert "needs fields" in str(state_problem(None, stored(Required)))
    assert state_problem(stored(Required), None) is None


def test_steps_that_are_fused_drain_the_edge_between_them() -> None:
    def plan(**options: Any) -> Plan:
        env = environment()
        env.from_topic("in").map(clean, name="clean").map(say, name="say", **options).to("out")
        return compile_plan(env.build())

    diff, hand = between(plan(timeout="5s", partitions=1), plan())
    assert diff.needs == frozenset()
    assert "say is fused onto the step before it; qa.clean is drained first" in diff.text()
    assert hand.leaving == {"say": ()}
    assert hand.held == ("clean",)
    diff, hand = between(plan(), plan(timeout="5s", partitions=1))
    assert "say has a stage of its own now" in diff.text()
    assert not hand.drains


def test_settings_of_the_topology_restart_all() -> None:
    def plan(guarantee: Any) -> Plan:
        env = environment(guarantee=guarantee)
        env.from_topic("in").map(say, name="say").to("out")
        return compile_plan(env.build())

    diff = diff_plans(plan("at_least_once"), plan("exactly_once"))
    assert [entry.text for entry in diff.entries] == ["guarantee at_least_once -> exactly_once"]
    assert diff.restarts == ("say",)
    assert diff.summary() == "~ 1 setting"
