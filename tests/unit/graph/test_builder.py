import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydantic import BaseModel, Field

from sage.errors import InvalidTopology, MissingVariable, NotInThisVersion, SageError
from sage.graph import DataStream, StreamBuilder, Topology
from sage.graph.topology import Input
from sage.spec.component import Operator, Sink, Source
from sage.spec.options import Options
from sage.spec.registry import Entry, Registry


class Lines(Source[str]):
    class Config(BaseModel):
        path: str

    async def read(self, task: str, position: Any, *, bounded: bool) -> AsyncIterator[tuple[str, Any]]:
        yield "", 0


class DenseRetriever(Operator[Any, Any]):
    class Config(BaseModel):
        top_k: int = 5
        api_key: str | None = Field(default=None, json_schema_extra={"secret": True})

    def process(self, value: Any, ctx: Any) -> Any:
        return value


class Terminal(Sink[Any]):
    async def write(self, records: Any) -> None: ...


def clean(value: str) -> str:
    return value


def words(value: str) -> Iterator[str]:
    yield from value.split()


async def words_later(value: str) -> AsyncIterator[str]:
    yield value


class Splits(Operator[str, str]):
    def process(self, value: str, ctx: Any) -> Iterator[str]:
        yield from value.split()


class Added:
    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, value: int) -> int:
        return value + self.number


def line() -> int:
    """The caller's line."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


@pytest.fixture
def env() -> StreamBuilder:
    return StreamBuilder("qa", registry=Registry(), environ={"N": "3"})


@pytest.fixture
def lines(env: StreamBuilder) -> DataStream[str]:
    return env.from_source(Lines, {"path": "a.txt"})


def names(topology: Topology) -> list[str]:
    return [step.name for step in topology.steps]


def told(call: Any) -> SageError:
    with pytest.raises(SageError) as raised:
        call()
    return raised.value


def test_a_pipeline_becomes_a_frozen_topology(env: StreamBuilder, lines: DataStream[str]) -> None:
    lines.map(DenseRetriever, {"topk": "${N}", "api_key": "${KEY}"}, concurrency=4).map(clean, name="tidy").sink(
        Terminal
    )
    topology = env.build()
    assert names(topology) == ["lines", "dense_retriever", "tidy", "terminal"]
    source, retrieve, tidy, sink = topology.steps
    assert (source.kind, source.target, source.config) == ("source", Lines, {"path": "a.txt"})
    assert (retrieve.kind, retrieve.config) == ("operator", {"top_k": 3, "api_key": "${KEY}"})
    assert (retrieve.options, retrieve.inputs) == (Options(concurrency=4), (Input("lines"),))
    assert (tidy.kind, tidy.target, tidy.inputs) == ("map", clean, (Input("dense_retriever"),))
    assert (sink.kind, sink.inputs) == ("sink", (Input("tidy"),))
    assert topology == env.build()


def test_automatic_names_are_the_code_s_names_and_numbered(env: StreamBuilder, lines: DataStream[str]) -> None:
    first = lines.map(clean).map(clean).map(lambda value: value).map(lambda value: value)
    keyed = first.filter(functools.partial(clean)).key_by(clean).key_by("field")
    keyed.union(lines).to("out")
    keyed.print()
    keyed.collect()
    lines.collect()
    lines.flatmap(DenseRetriever)
    env.from_topic("in").to("out2")
    env.from_collection([1]).route({"a": bool}).a.print()
    assert [stepped.name for stepped in env._steps.values()] == [
        "lines",
        "clean",
        "clean-2",
        "map",
        "map-2",
        "clean-3",
        "key_by",
        "key_by-2",
        "union",
        "to",
        "print",
        "collect",
        "collect-2",
        "dense_retriever",
        "from_topic",
        "to-2",
        "collection",
        "route",
        "print-2",
    ]


def test_references_are_registered_names_or_importable_ones(lines: DataStream[str]) -> None:
    env = StreamBuilder("qa", registry=Registry([Entry("operator", "dense", f"{__name__}:DenseRetriever")]))
    stream = env.from_source(Lines, {"path": "a"}).map(DenseRetriever).map(clean).map(lambda value: value)
    stream.collect()
    assert [step.reference for step in env.build().steps] == [
        f"{__name__}:Lines",
        "dense",
        f"{__name__}:clean",
        "",
        "",
    ]


def test_branches_and_unions_are_wired(env: StreamBuilder, lines: DataStream[str]) -> None:
    branches = lines.route({"spam": bool, "ham": clean}, default="rest")
    branches.spam.union(branches["rest"], lines).collect()
    route, union = env.build().by_name["route"], env.build().by_name["union"]
    assert (route.branches, route.default_branch) == ({"spam": bool, "ham": clean}, "rest")
    assert union.inputs == (Input("route", "spam"), Input("route", "rest"), Input("lines"))
    assert "did you mean spam?" in str(told(lambda: branches.span))
    assert not hasattr(branches, "__deepcopy__")


def test_emitted_branches_can_be_read(env: StreamBuilder, lines: DataStream[str]) -> None:
    lines.map(clean).branch("odd").collect()
    assert env.build().by_name["collect"].inputs == (Input("clean", "odd"),)


def test_every_step_knows_its_line(env: StreamBuilder, lines: DataStream[str]) -> None:
    here = line() + 1
    lines.map(clean)
    origin = env.build().by_name["clean"].origin
    assert origin is not None
    assert (origin.line, origin.file.rpartition("/")[2], origin.path) == (here, "test_builder.py", 'step "clean"')


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.map(clean, topq=1), "topq: unknown option; options: batch"),
        (lambda s: s.map(clean, concurency=1), "concurency: unknown option; did you mean concurrency?"),
        (lambda s: s.map(clean, nam="a"), "nam: unknown option; did you mean name?"),
        (lambda s: s.map(clean, retry={"attemps": 1}), "retry.attemps: unknown option; did you mean attempts?"),
        (lambda s: s.map(clean, ordering="kye"), "ordering: input should be 'key', 'partition' or 'none'; found 'kye'"),
        (lambda s: s.map(DenseRetriever, {"topq": 1}), "config.topq: unknown option; did you mean top_k?"),
        (lambda s: s.map(clean, {"a": 1}), "a function has no configuration"),
        (lambda s: s.map(clean, name="lines"), "step name 'lines' is taken by"),
        (lambda s: s.map(clean, name="A b"), "only a-z, 0-9, _ and - are allowed; try 'a-b'"),
        (lambda s: s.map(clean, name="dlq"), "is reserved"),
        (lambda s: s.map("clean"), "'clean' is a text, not a function or an Operator"),
        (lambda s: s.map(DenseRetriever()), "takes the class DenseRetriever and its options, not an instance"),
        (lambda s: s.map(Terminal), "Terminal is a sink; use it with sink()"),
        (lambda s: s.sink(DenseRetriever), "DenseRetriever is an operator; use it with map()"),
        (lambda s: s.sink(clean), "clean is not a Sink class"),
        (lambda s: s.map(lambda: 1), "the lambda takes no value"),
        (lambda s: s.map_batches(clean, max_size=1, max_wait=1, batch={}), "takes max_size and max_wait, not batch"),
        (lambda s: s.union(clean), "takes streams"),
        (lambda s: s.union(StreamBuilder("b").from_collection([1])), "belongs to another environment"),
        (lambda s: s._builder.from_collection("abc"), "takes a list of values; found 'abc'"),
        (lambda s: s._builder.from_topic("t", format="jsn"), "should be 'json', 'bytes' or 'str'; found 'jsn'"),
        (lambda s: s.map(words), "words is a generator, and map makes one value of each; use it with flatmap()"),
        (lambda s: s.map(words_later), "words_later is a generator"),
        (lambda s: s.filter(words), "words is a generator, which would count as true or as the key; return the result"),
        (lambda s: s.filter(Splits), "Splits is a generator"),
        (lambda s: s.key_by(words_later), "words_later is a generator"),
        (lambda s: s.map(Added), "Added can't be made without arguments; give an instance: Added(...)"),
        (lambda s: s.loop(max_hops="3"), "max_hops must be a number of at least 1; found '3'"),
        (lambda s: s.loop(max_hops=2.5), "max_hops must be a number of at least 1; found 2.5"),
        (lambda s: s.loop(max_hops=True), "max_hops must be a number of at least 1; found True"),
    ],
)
def test_mistakes_are_told_at_the_caller_s_line(lines: DataStream[str], call: Any, message: str) -> None:
    error = told(lambda: call(lines))
    assert isinstance(error, InvalidTopology)
    assert message in str(error)
    assert str(error).split(":")[0].endswith("test_builder.py")


@pytest.mark.parametrize(
    ("branches", "options", "message"),
    [
        (None, {}, "route takes a mapping of branches to predicates; found None"),
        (["spam"], {}, "route takes a mapping of branches to predicates; found ['spam']"),
        ({}, {}, "route takes a mapping of branches to predicates; found {}"),
        ({"spam": None}, {}, "branch 'spam': None is not a function"),
        ({"spam": lambda: True}, {}, "branch 'spam': the lambda takes no value"),
        ({"spam": words}, {}, "branch 'spam': words is a generator"),
        ({"spam": DenseRetriever}, {}, "branch 'spam': DenseRetriever is an operator; use it with map()"),
        ({5: bool}, {}, "branch name 5: only a-z, 0-9, _ and - are allowed"),
        ({"spam": bool}, {"default": 5}, "branch name 5: only a-z, 0-9, _ and - are allowed"),
        ({"error": bool}, {}, "branch 'error' is where failed records go; give it another name"),
        ({"spam": bool}, {"default": "error"}, "branch 'error' is where failed records go; give it another name"),
    ],
)
def test_branches_that_no_record_could_take_are_told_at_the_caller_s_line(
    lines: DataStream[str], branches: Any, options: Any, message: str
) -> None:
    error = told(lambda: (lines.route(branches, **options), lines._builder.build()))
    assert isinstance(error, InvalidTopology)
    assert message in str(error)
    assert str(error).split(":")[0].endswith("test_builder.py")


def test_a_route_may_have_no_default_and_its_failed_records_can_be_read(
    env: StreamBuilder, lines: DataStream[str]
) -> None:
    branches = lines.route({"spam": bool}, default=None)
    branches["error"].collect()
    assert env.build().by_name["collect"].inputs == (Input("route", "error"),)
    assert "did you mean spam?" in str(told(lambda: branches.span))


@pytest.mark.parametrize(
    ("fn", "settings", "message"),
    [
        (clean, {"ttl": "soon"}, "ttl: 'soon' is not a duration"),
        (clean, {"ttl": -1}, "ttl: -1 is not a duration"),
        (clean, {"state": dict}, "state must be a pydantic model (without it, state is a mapping); found dict"),
        (clean, {"state": DenseRetriever.Config()}, "state must be a pydantic model"),
        (clean, {"on_timer": 5}, "on_timer: 5 is not a function"),
        (clean, {"on_timer": lambda: 1}, "on_timer: the lambda takes no value"),
        (Splits, {"on_timer": clean}, "on_timer is for functions; write it as a method of Splits"),
        (clean, {"name": None}, "needs a name of its own"),
    ],
)
def test_mistakes_in_keyed_settings_are_told_at_the_caller_s_line(
    lines: DataStream[str], fn: Any, settings: Any, message: str
) -> None:
    error = told(lambda: lines.key_by("id").process(fn, **{"name": "counted", **settings}))
    assert isinstance(error, InvalidTopology)
    assert message in str(error)
    assert str(error).split(":")[0].endswith("test_builder.py")


def test_a_place_is_the_program_s_own_and_never_a_line_of_python_s(lines: DataStream[str]) -> None:
    with ThreadPoolExecutor(1) as pool:
        called_by_python = pool.submit(lines.map, clean, nam="a")
        called_by_us = pool.submit(lambda: lines.map(clean, nam="a"))
        assert str(told(called_by_python.result)).startswith("nam: unknown option")
        assert "test_builder.py" in str(told(called_by_us.result))


def test_operators_must_be_callable_with_value_and_context(lines: DataStream[str]) -> None:
    class Nothing(Operator[str, str]): ...

    class Narrow(Operator[str, str]):
        def process(self, value: str) -> str:  # type: ignore[override]
            return value

    assert "Nothing has no process()" in str(told(lambda: lines.map(Nothing)))
    assert "Narrow.process can't be called with (value, ctx)" in str(told(lambda: lines.map(Narrow)))


def test_sources_and_sinks_that_could_give_or_take_nothing_are_told(env: StreamBuilder, lines: DataStream[str]) -> None:
    class Listed(Source[str]):
        async def read(self, task: str, position: Any, *, bounded: bool) -> Any:
            return [("a", 1)]

    class Plain(Source[str]):
        def read(self, task: str, position: Any, *, bounded: bool) -> Any:
            yield "a", 1

    class Endless(Source[str]):
        async def read(self, task: str, position: Any) -> Any:  # type: ignore[override]
            yield "a", 1

    class Yields(Sink[str]):
        async def write(self, records: Any) -> Any:
            yield records

    class Narrow(Sink[str]):
        async def write(self) -> None: ...  # type: ignore[override]

    assert "Listed.read gives a coroutine; write it with async def and yield" in str(
        told(lambda: env.from_source(Listed))
    )
    assert "Plain.read gives a generator; write it with async def and yield" in str(
        told(lambda: env.from_source(Plain))
    )
    assert "Endless.read can't be called as it is; write read(self, task, position, *, bounded)" in str(
        told(lambda: env.from_source(Endless))
    )
    assert "Yields.write is a generator, whose code nothing runs; write it without yield" in str(
        told(lambda: lines.sink(Yields))
    )
    assert "Narrow.write can't be called as it is" in str(told(lambda: lines.sink(Narrow)))


def test_a_missing_variable_is_told_as_one(lines: DataStream[str]) -> None:
    assert isinstance(told(lambda: lines.map(DenseRetriever, {"top_k": "${MISSING}"})), MissingVariable)


def test_what_is_not_in_this_version_says_so(env: StreamBuilder, lines: DataStream[str]) -> None:
    keyed = lines.key_by("id")
    for call in (
        lambda: keyed.window(60),
        lambda: lines.join(lines, within=1),
        lambda: lines.lookup("table"),
        lambda: env.from_topic("t", timestamp="at"),
    ):
        error = told(call)
        assert isinstance(error, NotInThisVersion)
        assert "is not in this version" in str(error)
        assert "test_builder.py" in str(error)


def test_a_step_with_state_needs_a_name_of_its_own(lines: DataStream[str]) -> None:
    error = told(lambda: lines.key_by("id").process(clean, state=BaseModel))
    assert "needs a name of its own" in str(error)
    assert "test_builder.py" in str(error)


def test_verbs_of_keyed_streams_and_misspelt_ones_say_what_to_write(lines: DataStream[str]) -> None:
    stream: Any = lines
    with pytest.raises(AttributeError, match=r"process\(\) comes right after key_by\(\): \.key_by\(\.\.\.\)\.process"):
        stream.key_by("id").filter(bool).process(words, name="counted")
    with pytest.raises(AttributeError, match=r"a DataStream has no flat_map; did you mean flatmap\?"):
        stream.flat_map(words)
    assert not hasattr(stream, "__deepcopy__")


def test_a_loop_is_a_union_that_records_may_come_back_to(env: StreamBuilder, lines: DataStream[str]) -> None:
    loop = lines.loop(max_hops=3)
    again = loop.map(clean, name="again")
    loop.close(again)
    step = env.build().by_name["loop"]
    assert (step.kind, step.max_hops, [given.step for given in step.inputs]) == ("union", 3, [lines.name, "again"])
    assert "max_hops must be a number of at least 1" in str(told(lambda: lines.loop(max_hops=0)))


def test_names_and_defaults_of_the_topology_are_checked() -> None:
    assert "try 'a-b'" in str(told(lambda: StreamBuilder("A.b")))
    nameless: Any = None
    assert "topology name None: only a-z" in str(told(lambda: StreamBuilder(nameless)))
    assert "did you mean partitions?" in str(told(lambda: StreamBuilder("a", defaults={"partitons": 2})))
    twice: Any = "twice"
    assert "must be at_least_once or exactly_once" in str(told(lambda: StreamBuilder("a", guarantee=twice)))
    assert StreamBuilder("a", defaults={"parallelism": 2}).defaults == Options(partitions=2)


def test_memory_settings_are_checked_when_built(env: StreamBuilder, lines: DataStream[str]) -> None:
    env.memory = {"url": "x"}
    assert "memory.url: unknown option; did you mean uri?" in str(told(env.build))
    env.memory = {"uri": "${N}", "token": "${T}"}
    assert env.build().memory == {"uri": "3", "token": "${T}"}


def test_an_empty_environment_is_no_topology(env: StreamBuilder) -> None:
    assert "has no steps" in str(told(env.build))
