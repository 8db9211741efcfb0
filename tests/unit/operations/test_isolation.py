"""A topology under another name touches nothing of the original's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import Conflict, InvalidTopology, SageError, UnknownName
from sage.graph.builder import StreamBuilder
from sage.graph.topology import Topology
from sage.operations.isolation import isolated, output_topics, remove_run, run_name, sources_of
from sage.operators import MemoryWriter
from sage.plan.planner import compile_plan
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients

Write = Callable[..., None]


def work(value: Any) -> Any:
    return value


def topics_of(topology: Topology) -> set[str]:
    plan = compile_plan(topology)
    used = {topic.name for topic in plan.topics} | set(plan.external) | {stage.group for stage in plan.stages}
    return {name for name in used if name}


def several_ends() -> Topology:
    builder = StreamBuilder("shop")
    stream = builder.from_topic("orders", name="orders").map(work, name="work", partitions=3)
    stream.to("done")
    branches = stream.route({"large": work}, name="size")
    branches.large.map(work, name="more").print()
    branches.other.to("small")
    stream.branch("error").to("broken")
    return builder.build()


def test_all_topics_and_groups_of_the_run_begin_with_its_name() -> None:
    run = isolated(several_ends(), "shop-eval-1")
    assert {name for name in topics_of(run.topology) if not name.startswith("shop-eval-1.")} == set()
    assert (run.entry, run.input_topic) == ("orders", "shop-eval-1.orders")


def test_results_are_what_the_sinks_are_given_in_the_order_of_the_topology() -> None:
    topology = several_ends()
    run = isolated(topology, "run")
    sinks = [f"run.{step.name}" for step in topology.steps if step.kind == "sink"]
    found = output_topics(compile_plan(run.topology))
    assert [topic for topic in found if topic in sinks] == sinks


def test_a_step_that_nobody_reads_is_a_result_too() -> None:
    builder = StreamBuilder("shop")
    builder.from_topic("orders").map(work, name="work")
    run = isolated(builder.build(), "run")
    assert output_topics(compile_plan(run.topology)) == ["run.work"]


def test_steps_between_source_and_sink_stay_as_they_are() -> None:
    topology = several_ends()
    run = isolated(topology, "run")
    assert [step.name for step in run.topology.steps] == [step.name for step in topology.steps]
    kept = [step for step in topology.steps if step.kind not in {"source", "sink"}]
    assert [step for step in run.topology.steps if step.kind not in {"source", "sink"}] == kept


def test_a_topic_that_the_topology_writes_and_reads_itself_is_one_of_the_run() -> None:
    builder = StreamBuilder("shop")
    builder.from_collection([1]).map(work, name="first").to("between")
    builder.from_topic("between").map(work, name="second").to("done")
    topology = builder.build()
    assert len(sources_of(topology)) == 1
    plan = compile_plan(isolated(topology, "run").topology)
    second = next(stage for stage in plan.stages if stage.name == "second")
    assert second.inputs[0].topic in {output.topic for output in plan.by_name["first"].outputs}
    assert not {name for name in topics_of(plan.topology) if not name.startswith("run.")}


def test_several_sources_want_to_be_chosen_from_and_the_others_give_nothing() -> None:
    builder = StreamBuilder("shop")
    first, second = builder.from_topic("orders", name="orders"), builder.from_topic("returns", name="returns")
    first.union(second).map(work, name="work").to("done")
    topology = builder.build()
    with pytest.raises(InvalidTopology, match=r"2 sources.*orders, returns.*--source") as several:
        isolated(topology, "run")
    assert several.value.exit_code == 2
    with pytest.raises(UnknownName, match="did you mean returns") as unknown:
        isolated(topology, "run", source="retruns")
    assert unknown.value.exit_code == 2
    run = isolated(topology, "run", source="returns")
    assert run.input_topic == "run.returns"
    assert compile_plan(run.topology).external == ("run.returns",)


def test_a_topology_that_writes_memory_is_refused() -> None:
    builder = StreamBuilder("fill")
    builder.from_topic("passages").map(MemoryWriter, {"collection": "handbook"}, name="store").to("stored")
    with pytest.raises(InvalidTopology, match="'store' writes to a collection"):
        isolated(builder.build(), "run")


def test_the_entry_takes_what_the_source_took() -> None:
    builder = StreamBuilder("shop", defaults={"partitions": 4})
    builder.from_topic("orders", format="str").map(work, name="work").to("done")
    run = isolated(builder.build(), "run", guarantee="exactly_once")
    assert (run.input_format, run.partitions, run.topology.guarantee) == ("str", 4, "exactly_once")


@given(st.from_regex(r"(?!__)[a-z0-9_-]{1,240}", fullmatch=True))
def test_a_run_has_a_legal_name_that_no_other_has(name: str) -> None:
    builder = StreamBuilder("t")
    builder.from_topic("orders").map(work, name="work").to("done")
    first, second = run_name(name, "eval"), run_name(name, "eval")
    assert first != second
    assert isolated(builder.build(), first).name == first


def test_what_a_run_left_is_removed_and_nothing_else(clients: InMemoryClients, write: Write, tmp_path: Path) -> None:
    for topic in ("run-1.work", "run-1.dlq", "run-12.work", "run-1x"):
        write(topic, [b"1"])
    for name in ("run-1", "run-2"):
        (tmp_path / "state" / "slot-0" / name / "count" / "0").mkdir(parents=True)
    remove_run(clients, "run-1", tmp_path)
    assert sorted(info.name for info in clients.admin().list_topics()) == ["run-12.work", "run-1x"]
    assert [place.name for place in (tmp_path / "state" / "slot-0").iterdir()] == ["run-2"]


def test_a_member_that_does_not_leave_is_told_after_a_while(
    clients: InMemoryClients, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    admin = clients.admin()
    admin.create([TopicSpec("run.work")])

    def refuse(groups: Any) -> None:
        raise Conflict("run.work has members")

    monkeypatch.setattr(admin, "delete_groups", refuse)
    monkeypatch.setattr(clients, "admin", lambda: admin)
    with pytest.raises(SageError, match=r"not empty.*has members"):
        remove_run(clients, "run", tmp_path, timeout=0.0)
