from __future__ import annotations

from typing import Any

import pytest

from sage.errors import InvalidTopology, NotInThisVersion, SageError, UnknownName
from sage.graph import StreamBuilder
from sage.graph.topology import Input, Step, Topology
from sage.plan.plan import Plan, StageInput, StageOutput
from sage.plan.planner import compile_plan
from sage.plan.topics import offsets_partitions
from sage.ports import TopicSpec
from sage.spec.component import Operator
from sage.spec.options import BatchPolicy, RetryPolicy


def clean(value: Any) -> Any:
    return value


def raw(value: Any) -> bytes | None:
    return None


async def later(value: Any) -> Any:
    return value


class Model(Operator[Any, Any]):
    default_timeout = 60.0

    async def process(self, value: Any, ctx: Any) -> Any:
        return value

    async def process_batch(self, values: Any, contexts: Any) -> Any:
        return values


@pytest.fixture
def env() -> StreamBuilder:
    return StreamBuilder("t")


def plan_of(env: StreamBuilder) -> Plan:
    return compile_plan(env.build())


def reads(plan: Plan, stage: str) -> list[str]:
    return [given.topic for given in plan.by_name[stage].inputs]


def writes(plan: Plan, stage: str) -> list[str]:
    return [output.topic for output in plan.by_name[stage].outputs]


# -------------------------------------------------------------------------------------- topics, groups


def test_names_are_the_first_step_s_group_and_the_last_step_s_edge(env: StreamBuilder) -> None:
    env.from_collection([1]).map(clean).map(clean, name="tidy").collect()
    plan = plan_of(env)
    stage = plan.by_name["clean"]
    assert (stage.group, stage.label()) == ("t.clean", "clean + tidy")
    assert stage.inputs == (StageInput("t.collection", 1, upstream="collection"),)
    assert stage.outputs == (StageOutput("t.tidy", "tidy"),)
    assert (plan.by_name["collection"].group, plan.by_name["collect"].group) == ("", "t.collect")
    assert plan.upstream(plan.by_name["collect"]) == (stage,)


def test_topics_are_made_to_keep_everything() -> None:
    env = StreamBuilder("t", defaults={"partitions": 3})
    env.from_collection([1]).map(clean, partitions=5).to("out")
    plan = plan_of(env)
    keep = {"retention.ms": "-1"}
    positions = {
        "cleanup.policy": "compact",
        "message.timestamp.type": "LogAppendTime",
        "segment.ms": "600000",
        "segment.bytes": "4194304",
    }
    assert plan.topics == (
        TopicSpec("t.collection", 3, 1, keep),
        TopicSpec("out", 5, 1, {}),
        TopicSpec("t.clean.retry", 3, 1, keep),
        TopicSpec("t.offsets", 1, 1, positions),
        TopicSpec("t.dlq", 1, 1, keep),
    )
    assert plan.dead_letter_topic == "t.dlq"


def test_every_source_task_has_its_partition_of_the_offsets_topic(env: StreamBuilder) -> None:
    env.from_collection([1], name="b")
    env.from_collection([1], name="a")
    plan = compile_plan(env.build(), source_tasks={"b": ["x", "y"]})
    assert plan.source_tasks == {"b": ("x", "y"), "a": ("0",)}
    assert offsets_partitions(plan) == {("b", "x"): 0, ("b", "y"): 1, ("a", "0"): 2}
    assert [topic.partitions for topic in plan.topics if topic.name == "t.offsets"] == [3]


def test_source_tasks_are_checked(env: StreamBuilder) -> None:
    env.from_collection([1], name="a").map(clean)
    topology = env.build()
    with pytest.raises(UnknownName, match="no source 'clean'"):
        compile_plan(topology, source_tasks={"clean": ["0"]})
    with pytest.raises(InvalidTopology, match="source gives no tasks"):
        compile_plan(topology, source_tasks={"a": []})
    with pytest.raises(InvalidTopology, match="the same task twice"):
        compile_plan(topology, source_tasks={"a": ["0", "0"]})


# --------------------------------------------------------------------------------- topics of others


def test_a_topic_source_dissolves_into_its_readers(env: StreamBuilder) -> None:
    lines = env.from_topic("given", format="str")
    lines.map(clean)
    lines.map(later)
    plan = plan_of(env)
    assert [stage.name for stage in plan.stages] == ["clean", "later"]
    given = StageInput("given", None, format="str", owned=False, upstream="from_topic")
    assert plan.by_name["clean"].inputs == plan.by_name["later"].inputs == (given,)
    assert plan.external == ("given",)
    assert not any(topic.name == "given" for topic in plan.topics)


def test_a_topic_sink_dissolves_into_its_writer(env: StreamBuilder) -> None:
    env.from_collection([1]).to("direct")
    cleaned = env.from_topic("in").map(clean)
    cleaned.to("out")
    cleaned.to("too")
    plan = plan_of(env)
    assert writes(plan, "collection") == ["direct"]
    assert writes(plan, "clean") == ["out", "too"]
    assert not any(output.owned for output in plan.by_name["clean"].outputs)


def test_a_step_with_other_readers_has_an_edge_too(env: StreamBuilder) -> None:
    cleaned = env.from_topic("in").map(clean)
    cleaned.to("out")
    cleaned.collect()
    assert writes(plan_of(env), "clean") == ["t.clean", "out"]


def test_an_edge_that_nobody_reads_is_there_for_people(env: StreamBuilder) -> None:
    env.from_topic("in").map(clean)
    assert writes(plan_of(env), "clean") == ["t.clean"]


def test_a_topic_goes_to_a_topic_by_a_stage_without_code(env: StreamBuilder) -> None:
    lines = env.from_topic("in", format="bytes")
    lines.to("one")
    lines.to("two", partitions=6)
    lines.map(clean)
    plan = plan_of(env)
    copy = plan.by_name["from_topic"]
    assert (copy.steps, copy.execution, copy.group, copy.label()) == ((), "sync", "t.from_topic", "from_topic")
    assert reads(plan, "from_topic") == ["in"]
    assert [(o.topic, o.format, o.owned) for o in copy.outputs] == [("one", "bytes", False), ("two", "bytes", False)]
    assert {topic.name: topic.partitions for topic in plan.topics}["two"] == 6


def test_a_topic_may_be_written_here_and_read_there(env: StreamBuilder) -> None:
    env.from_topic("middle").map(clean)
    env.from_collection([1]).to("middle")
    plan = plan_of(env)
    assert [stage.name for stage in plan.stages] == ["collection", "clean"]
    assert plan.external == ()
    assert plan.by_name["clean"].inputs[0].partitions == 1
    assert plan.upstream(plan.by_name["clean"]) == (plan.by_name["collection"],)


def test_a_loop_over_a_topic_without_a_bound_is_refused(env: StreamBuilder) -> None:
    env.from_topic("loop").map(clean).to("loop")
    with pytest.raises(InvalidTopology, match=r"reads what it writes \(loop\).*stream\.loop\(max_hops"):
        plan_of(env)


def test_the_edge_that_goes_back_to_a_loop_is_bounded(env: StreamBuilder) -> None:
    loop = env.from_topic("in").loop(max_hops=4)
    loop.close(loop.map(clean, name="again"))
    stage = plan_of(env).by_name["again"]
    assert {i.topic: i.max_hops for i in stage.inputs} == {"in": None, f"{env.name}.again": 4}


# ------------------------------------------------------------------------------- branches and unions


def test_branches_have_edges_of_their_own(env: StreamBuilder) -> None:
    branches = env.from_topic("in").route({"spam": bool, "ham": bool})
    branches.spam.to("spam")
    branches.ham.collect()
    plan = plan_of(env)
    assert [(o.topic, o.branch) for o in plan.by_name["route"].outputs] == [
        ("spam", "spam"),
        ("t.route-ham", "ham"),
        ("t.route-other", "other"),
    ]
    assert reads(plan, "collect") == ["t.route-ham"]


def test_emitted_branches_stand_beside_the_output(env: StreamBuilder) -> None:
    env.from_topic("in").map(clean).branch("odd").collect()
    assert writes(plan_of(env), "clean") == ["t.clean", "t.clean-odd"]


def test_a_union_dissolves_and_its_reader_keeps_ids_apart(env: StreamBuilder) -> None:
    branches = env.from_topic("in").route({"a": bool})
    other = env.from_topic("there").map(later)
    branches.a.union(branches.other).union(other, env.from_topic("here")).map(clean)
    plan = plan_of(env)
    assert [(i.topic, i.merges) for i in plan.by_name["clean"].inputs] == [
        ("t.route-a", "route-a"),
        ("t.route-other", "route-other"),
        ("t.later", "later"),
        ("here", "from_topic-3"),
    ]
    assert not any(stage.name.startswith("union") for stage in plan.stages)


def test_one_input_needs_no_merging(env: StreamBuilder) -> None:
    env.from_topic("in").union().map(clean)
    assert plan_of(env).by_name["clean"].inputs[0].merges is None


def test_a_stream_that_comes_twice_by_a_union_is_refused(env: StreamBuilder) -> None:
    lines = env.from_topic("in").map(clean)
    lines.union(env.from_topic("there")).union(lines).collect()
    with pytest.raises(InvalidTopology, match="reads clean twice"):
        plan_of(env)


def test_several_streams_to_one_topic_are_merged_by_a_stage(env: StreamBuilder) -> None:
    one, two = env.from_topic("in").map(clean), env.from_topic("in2").map(clean)
    one.to("out")
    two.to("out")
    plan = plan_of(env)
    assert (writes(plan, "clean"), writes(plan, "clean-2")) == (["t.clean"], ["t.clean-2"])
    merge = plan.by_name["to"]
    assert (merge.steps, [i.merges for i in merge.inputs]) == ((), ["clean", "clean-2"])
    assert writes(plan, "to") == ["out"]


# -------------------------------------------------------------------------------------------- formats


def test_bytes_stay_bytes_and_the_rest_is_json(env: StreamBuilder) -> None:
    given = env.from_topic("in", format="bytes")
    given.filter(bool, name="kept").key_by("id").to("keyed")
    given.map(clean, name="decoded")
    given.map(raw)
    env.from_topic("text", format="str").filter(bool, name="texts")
    plan = plan_of(env)
    formats = {o.topic: o.format for stage in plan.stages for o in stage.outputs}
    assert formats == {"keyed": "bytes", "t.decoded": "json", "t.raw": "bytes", "t.texts": "str"}


def test_bytes_beside_json_cannot_be_handed_on(env: StreamBuilder) -> None:
    env.from_topic("in", format="bytes").union(env.from_topic("in2")).filter(bool)
    with pytest.raises(InvalidTopology, match="from_topic gives bytes and its other inputs don't"):
        plan_of(env)


def test_a_copy_of_text_beside_json_writes_values_anew(env: StreamBuilder) -> None:
    env.from_topic("texts", format="str").union(env.from_topic("jsons")).to("mixed")
    env.from_topic("more").to("same")
    stages = plan_of(env).by_name
    assert (stages["to"].converts, stages["to"].retry_topic) == (True, "t.to.retry")
    assert (stages["from_topic-3"].converts, stages["from_topic-3"].retry_topic) == (False, "")


def test_a_sink_may_say_its_format() -> None:
    source = Step("in", "source", "topic", config={"topic": "given", "format": "bytes"})
    out = Step("out", "sink", "topic", config={"topic": "out", "format": "str"}, inputs=(Input("in"),))
    (copy,) = compile_plan(Topology("t", (source, out))).stages
    assert (copy.inputs[0].format, copy.outputs[0].format) == ("bytes", "str")


# ------------------------------------------------------------------------------------- how they run


def test_stages_know_every_option() -> None:
    env = StreamBuilder("t", defaults={"ordering": "none", "on_error": "skip"})
    lines = env.from_topic("in")
    lines.map(Model, name="model")
    lines.map(Model, name="own", timeout="2s", concurrency=99, batch={"max_size": 4}, on_error="fail")
    lines.map(clean)
    lines.map(later, retry={"attempts": 2})
    plan = plan_of(env)
    model = plan.by_name["model"].options
    assert (model.timeout, model.batch, model.partitions, model.on_error) == (60.0, BatchPolicy(), 1, "skip")
    assert (plan.by_name["model"].ordering, plan.by_name["model"].concurrency) == ("none", 16)
    own = plan.by_name["own"]
    assert (own.options.timeout, own.options.batch, own.concurrency) == (2.0, BatchPolicy(max_size=4), 99)
    assert own.options.on_error == "fail"
    plain = plan.by_name["clean"]
    assert (plain.options.timeout, plain.options.batch, plain.concurrency) == (None, None, 1)
    assert plain.options.retry == RetryPolicy(attempts=5, backoff=0.2, max_backoff=30.0)
    assert plan.by_name["later"].options.retry == RetryPolicy(attempts=2)


def test_defaults_of_the_topology_beat_the_component_s() -> None:
    env = StreamBuilder("t", defaults={"timeout": 5, "concurrency": 3})
    env.from_topic("in").map(Model, name="model")
    stage = plan_of(env).by_name["model"]
    assert (stage.options.timeout, stage.concurrency) == (5.0, 3)


# ------------------------------------------------------------------------------ not in this version


def told(topology: Topology) -> list[str]:
    with pytest.raises(SageError) as raised:
        compile_plan(topology)
    return str(raised.value).splitlines()


def test_what_this_version_cannot_run_is_told_at_once(env: StreamBuilder) -> None:
    source = Step("in", "source", "topic", config={"topic": "given"})
    steps = [Step(kind, kind, clean, inputs=(Input("in"),)) for kind in ("window", "join")]
    problems = told(Topology("t", (source, *steps)))
    assert [problem.rpartition(" ")[2] for problem in problems] == ["[SAGE110]"] * 2


def test_one_unsupported_feature_is_raised_as_such() -> None:
    source = Step("in", "source", "topic", config={"topic": "given"})
    with pytest.raises(NotInThisVersion):
        compile_plan(Topology("t", (source, Step("w", "window", clean, inputs=(Input("in"),)))))
