from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sage.errors import SageError
from sage.graph import StreamBuilder
from sage.graph.topology import Input, Step, TopicSettings, Topology
from sage.graph.validate import ordered, problems_of
from sage.graph.yaml import parse_topology, write_topology
from sage.model.names import RESERVED
from sage.spec.options import BatchPolicy, Options, RetryPolicy

NAMES = st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True).filter(lambda name: name not in RESERVED)
TEXTS = st.text(max_size=20).filter(lambda text: text.isprintable()) | st.sampled_from(
    ["${X}", "$${X}", "yes", "1", "null", "a: b", "# c", "line\nbreak", " padded ", "'\"", "é中", "<<"]
)
SECONDS = st.floats(0, 1e6, allow_nan=False).map(lambda seconds: round(seconds, 3))


def _set(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Options]:
    """Options with any choice of these fields set."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: Options(**given))


OPTIONS = _set(
    partitions=st.integers(1, 64),
    concurrency=st.integers(1, 64),
    ordering=st.sampled_from(["key", "partition", "none"]),
    timeout=SECONDS,
    on_error=st.sampled_from(["dlq", "skip", "fail"]),
    retry=st.builds(RetryPolicy, attempts=st.integers(1, 9), backoff=SECONDS),
)


@st.composite
def topologies(draw: st.DrawFn, pieces: ModuleType) -> Topology:
    """A valid topology of every kind of step, in any wiring."""
    names = draw(st.lists(NAMES, min_size=2, max_size=8, unique=True))
    steps = [
        Step(names[0], "source", "topic", config={"topic": "given", "format": draw(st.sampled_from(["json", "str"]))})
    ]
    readable: list[Input] = [Input(names[0])]
    for name in names[1:]:
        inputs = tuple(draw(st.lists(st.sampled_from(readable), min_size=1, max_size=3, unique=True)))
        step = draw(_steps(pieces, name, inputs))
        steps.append(step)
        if step.kind == "route":
            readable += [Input(name, branch) for branch in (*step.branches, step.default_branch)]
        elif step.kind != "sink":
            readable.append(Input(name))
    return Topology(
        name=draw(NAMES),
        steps=ordered(steps),
        guarantee=draw(st.sampled_from(["at_least_once", "exactly_once"])),
        defaults=draw(OPTIONS),
        topics=TopicSettings(draw(st.integers(1, 3)), draw(st.none() | SECONDS)),
        memory=draw(st.fixed_dictionaries({}, optional={"uri": TEXTS, "token": st.just("${TOKEN}")})),
        kafka=draw(st.fixed_dictionaries({}, optional={"linger.ms": st.integers(0, 9)})),
    )


@st.composite
def _steps(draw: st.DrawFn, pieces: ModuleType, name: str, inputs: tuple[Input, ...]) -> Step:
    options = draw(OPTIONS)
    made = [
        Step(name, "map", pieces.clean, "pieces:clean"),
        Step(name, "filter", pieces.is_long, "pieces:is_long"),
        Step(name, "flatmap", pieces.Twice, "pieces:Twice"),
        Step(name, "key_by", "field"),
        Step(name, "key_by", pieces.clean, "pieces:clean"),
        Step(name, "union"),
        Step(name, "sink", pieces.Terminal, "terminal"),
        Step(name, "sink", "topic", config={"topic": f"out.{name}".replace("_", "-")}),
        Step(name, "route", branches={"spam": pieces.is_long, "cel": "value.n > 3"}, default_branch="other"),
        Step(name, "operator", pieces.DenseRetriever, "dense_retriever", {"collection": draw(TEXTS), "top_k": 3}),
        Step(
            name, "operator", pieces.OpenAIGenerator, "openai_generator", {"api_key": "${KEY}", "prompt": draw(TEXTS)}
        ),
        Step(name, "map_batches", pieces.batched, "pieces:batched"),
    ]
    step = draw(st.sampled_from(made))
    if step.kind == "map_batches":
        options = options.model_copy(update={"batch": BatchPolicy(max_size=4, max_wait=0.5)})
    return replace(step, options=options, inputs=inputs)


def test_every_topology_reads_back_the_same(pieces: ModuleType) -> None:
    @given(topologies(pieces))
    @settings(max_examples=150, deadline=None)
    def round_trip(topology: Topology) -> None:
        assume(not problems_of(topology))  # names of branches and topics can meet by chance
        text = write_topology(topology)
        again = parse_topology(text, environ={"X": "wrong", "KEY": "wrong"}, registry=pieces.REGISTRY)
        assert again == topology

    round_trip()


def test_what_yaml_cannot_name_is_told_for_every_step(pieces: ModuleType) -> None:
    env = StreamBuilder("t", registry=pieces.REGISTRY)

    def local(value: int) -> int:
        return value

    env.from_collection([1]).map(lambda value: value).map(local).map(
        pieces.OpenAIGenerator, {"api_key": "sk-secret"}
    ).to("out")
    with pytest.raises(SageError) as raised:
        write_topology(env.build())
    lines = str(raised.value).splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == [
        "YAML cannot name Collection of sage.graph.endpoints. Move it to a module. [SAGE101]",
        "YAML cannot name a lambda. Move it to a module. [SAGE101]",
        f"YAML cannot name {local.__qualname__} of {__name__}. Move it to a module. [SAGE101]",
        "api_key is a secret written out; write ${NAME} instead [SAGE101]",
    ]
    assert "sk-secret" not in str(raised.value)


def test_the_text_is_what_a_person_would_write(pieces: ModuleType) -> None:
    env = StreamBuilder("t", defaults={"partitions": 2}, registry=pieces.REGISTRY)
    lines = env.from_source(pieces.File, {"path": "a.txt"}, name="lines")
    lines.map(pieces.clean, concurrency=4).sink(pieces.Terminal, name="out")
    assert write_topology(env.build()) == (
        "version: 1\nname: t\nguarantee: at_least_once\ndefaults:\n  partitions: 2\nsteps:\n"
        "  lines:\n    source: file\n    config:\n      path: a.txt\n"
        "  clean:\n    map: pieces:clean\n    from: lines\n    concurrency: 4\n"
        "  out:\n    sink: terminal\n    from: clean\n"
    )
