"""The topology driver: what it takes, shows, and replaces."""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from sage import LocalEnvironment
from sage.errors import InvalidTopology, RateLimited, SageError, UnknownName
from sage.graph.builder import StreamBuilder
from sage.model.record import Record
from sage.operators import DenseRetriever, OpenAIGenerator, QAPromptor
from sage.plan.planner import compile_plan
from sage.spec.component import Operator, Sink
from sage.spec.context import Context
from sage.testing import Delayed, MockTextEmbedder, ScriptedChatModel, TopologyDriver
from sage.testing.virtual_time import START_MS
from tests.unit.testing.driven import MakeDriver, double, numbers, simple

# --------------------------------------------------------------------------------------------- sending


def test_every_steps_output_can_be_looked_at(sage_driver: MakeDriver) -> None:
    driver = sage_driver(numbers())
    driver.send(1)
    driver.send(0)
    assert driver.outputs("source") == [1, 0]
    assert driver.outputs("double") == [2, 0]
    assert driver.outputs("later") == []
    driver.advance("1m")
    assert driver.outputs("later") == [3, 1]
    assert driver.outputs("big") == driver.outputs("out") == [3]


def test_nothing_is_fused_though_production_would(sage_driver: MakeDriver) -> None:
    builder = StreamBuilder("t")
    builder.from_collection([], name="source").map(double, name="first").map(double, name="second")
    assert [stage.label() for stage in compile_plan(builder.build()).stages] == ["source", "first + second"]
    driver = sage_driver(builder)
    assert [stage.label() for stage in driver.plan.stages] == ["source", "first", "second"]
    driver.send(1)
    assert (driver.outputs("first"), driver.outputs("second")) == ([2], [4])


def test_key_headers_and_time_travel_with_a_record(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple())
    driver.advance("1h")
    driver.send(4, key="ann", headers={"tenant": "a", "empty": b"", "null": None})
    (record,) = driver.records("work")
    assert (record.value, record.key, record.timestamp) == (8, b"ann", START_MS + 3_600_000)
    assert [pair for pair in record.headers if pair[0] in {"tenant", "empty", "null"}] == [
        ("tenant", b"a"), ("empty", b""), ("null", None),
    ]  # fmt: skip
    assert record.id == driver.records("source")[0].id != ""
    assert (record.topic, record.partition, record.offset) == ("t.work", 0, 0)


def test_records_have_ids_of_their_own_and_the_same_in_every_run() -> None:
    def ids() -> list[str]:
        with TopologyDriver(simple()) as driver:
            for number in range(3):
                driver.send(number)
            return [record.id for record in driver.records("work")]

    assert ids() == ids()
    assert len(set(ids())) == 3


def test_a_record_may_enter_anywhere(sage_driver: MakeDriver) -> None:
    driver = sage_driver(numbers())
    driver.send(10, to="later")
    driver.advance(60)
    assert (driver.outputs("later"), driver.outputs("double")) == ([11], [10])  # the input of "later" is "double"'s
    with pytest.raises(UnknownName, match="no step 'latter'; did you mean later"):
        driver.send(1, to="latter")


def test_topics_that_others_write_are_there_and_hold_what_their_format_says(sage_driver: MakeDriver) -> None:
    builder = StreamBuilder("t")
    lines = builder.from_topic("lines", format="str", name="lines")
    raw = builder.from_topic("raw", format="bytes", name="raw")
    lines.map(lambda text: text.upper(), name="upper")
    raw.map(len, name="size")
    driver = sage_driver(builder)
    driver.send("hello, world", to="lines")
    driver.send(b"\x00\x01", to="raw")
    assert (driver.outputs("upper"), driver.outputs("size")) == (["HELLO, WORLD"], [2])
    assert driver.outputs("lines") == ["hello, world"]
    assert driver.broker.messages("lines")[0].value() == b"hello, world"


def test_text_and_json_that_go_to_one_topic_are_json_there(sage_driver: MakeDriver) -> None:
    builder = StreamBuilder("t")
    texts, jsons = builder.from_topic("texts", format="str", name="texts"), builder.from_topic("jsons", name="jsons")
    texts.union(jsons).to("out")
    driver = sage_driver(builder)
    driver.send("hello", key="k", to="texts")
    for value in ({"a": 1}, "text", None, b"{no json"):
        driver.send(value, to="jsons")
    assert [message.value() for message in driver.broker.messages("out")] == [b'"hello"', b'{"a":1}', b'"text"', None]
    assert [(dead.step, dead.error) for dead in driver.dead_letters()] == [("to", "DecodeFailure")]


def test_several_sources_and_a_union(sage_driver: MakeDriver) -> None:
    builder = StreamBuilder("t")
    left: Any = builder.from_collection([], name="left")
    right: Any = builder.from_collection([], name="right")
    left.union(right).map(double, name="work")
    driver = sage_driver(builder)
    driver.send(1)
    driver.send(2, to="right")
    assert driver.outputs("work") == [2, 4]
    assert driver.outputs("union") == [1, 2]


def test_branches_are_looked_at_by_their_name(sage_driver: MakeDriver) -> None:
    builder = StreamBuilder("t")
    branches: Any = builder.from_collection([], name="source").route(
        {"odd": lambda v: v % 2}, default="even", name="sort"
    )
    branches.odd.map(double, name="work")
    driver = sage_driver(builder)
    for number in range(4):
        driver.send(number)
    assert (driver.outputs("sort.odd"), driver.outputs("sort.even")) == ([1, 3], [0, 2])
    assert driver.outputs("sort") == [1, 3, 0, 2]
    assert driver.outputs("work") == [2, 6]


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        ("sort.od", "sort gives nothing to a branch 'od'; did you mean odd?"),
        ("work.odd", "work gives nothing to a branch 'odd'; it has none that is read"),
        ("work.error", "work gives nothing to a branch 'error'; it has none that is read"),
        ("source.odd", "source gives nothing to a branch 'odd'"),
    ],
)
def test_a_branch_that_is_not_there_is_told_instead_of_being_empty(
    sage_driver: MakeDriver, branch: str, message: str
) -> None:
    builder = StreamBuilder("t")
    branches: Any = builder.from_collection([], name="source").route({"odd": lambda v: v % 2}, name="sort")
    branches.odd.map(double, name="work")
    branches["error"].map(double, name="again")
    driver = sage_driver(builder)
    driver.send(1)
    assert driver.outputs("sort.error") == []
    with pytest.raises(UnknownName, match=re.escape(message)):
        driver.outputs(branch)


def test_what_can_t_be_sent_or_raised_is_told_with_what_to_give(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple())
    with pytest.raises(SageError, match=r"header 'n' must be text, bytes or None; found 1"):
        driver.send(1, headers={"n": 1})
    with pytest.raises(SageError, match=r"fail_next takes an exception; found 'reset'"):
        driver.fail_next("work", "reset")
    driver.send(1)
    assert driver.outputs("work") == [2]


def test_a_driver_that_is_closed_says_so() -> None:
    with TopologyDriver(simple()) as driver:
        driver.send(1)
    for move in (lambda: driver.send(2), lambda: driver.advance(1), driver.crash):
        with pytest.raises(SageError, match="this driver is closed; make another"):
            move()
    assert driver.outputs("work") == [2]


def test_values_are_plain_when_they_come_out_of_a_topic(sage_driver: MakeDriver) -> None:
    class Answer(BaseModel):
        text: str

    def answer(value: Any) -> Any:
        return {"model": Answer(text="a"), "tuple": (1, 2), "bytes": b"\xff", "none": None}[value]

    driver = sage_driver(simple(answer))
    for name in ("model", "tuple", "bytes", "none"):
        driver.send(name)
    assert driver.outputs("work") == [{"text": "a"}, [1, 2], b"\xff", None]


# ------------------------------------------------------------------------------------------ kinds of target


def test_an_environment_is_driven_without_a_broker_or_a_folder(
    sage_driver: MakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = LocalEnvironment("t")
    collected = env.from_collection([1, 2]).map(double, name="work").collect()
    driver = sage_driver(env)
    driver.send(5)
    assert collected == [10]  # the collection itself is not read
    assert list(tmp_path.iterdir()) == []


def test_a_yaml_file_is_driven(sage_driver: MakeDriver, tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text("def shout(value):\n    return value.upper() + '!'\n")
    path = tmp_path / "pipe.yaml"
    path.write_text(
        "version: 1\nname: pipe\nsteps:\n"
        "  lines: {source: file, config: {path: lines.txt}}\n"
        "  shout: {map: 'steps:shout', from: lines}\n"
        "  out: {sink: topic, from: shout, config: {topic: '${OUT}'}}\n"
    )
    driver = sage_driver(path, environ={"OUT": "loud"})
    driver.send("hello")
    assert driver.outputs("out") == ["HELLO!"]
    assert [message.value() for message in driver.broker.messages("loud")] == [b'"HELLO!"']


@pytest.mark.parametrize("name", ["pipe.py:env", "pipe.py:make", "pipe:make", "pipe.py"])
def test_a_target_of_the_command_line_is_driven(
    sage_driver: MakeDriver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pipe", raising=False)
    (tmp_path / "pipe.py").write_text(
        "from sage import LocalEnvironment\n\n"
        "def make():\n"
        "    env = LocalEnvironment('pipe')\n"
        "    env.from_collection([], name='lines').map(str.upper, name='shout')\n"
        "    return env\n\n"
        "env = make()\n"
    )
    driver = sage_driver(name)
    driver.send("hello")
    assert driver.outputs("shout") == ["HELLO"]


def test_a_frozen_topology_is_driven_and_other_things_are_refused(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple().build())
    driver.send(1)
    assert driver.outputs("work") == [2]
    with pytest.raises(SageError, match="a int can't be driven"):
        TopologyDriver(3)  # type: ignore[arg-type]


async def test_inside_an_event_loop_the_driver_says_where_it_belongs() -> None:
    with pytest.raises(SageError, match="in a plain test function, not in an async"):
        TopologyDriver(simple())


def test_the_documented_test_runs_as_it_stands() -> None:
    text = inspect.cleandoc(TopologyDriver.__doc__ or "")
    _, _, rest = text.partition("runs as it stands::\n")
    lines = rest.splitlines()
    end = next(place for place, line in enumerate(lines) if line and not line.startswith("    "))
    code = textwrap.dedent("\n".join(lines[:end]))
    assert "advance" in code
    exec(compile(code, "docstring", "exec"), {})


# ----------------------------------------------------------------------------------------- sinks, overrides


class Kept(Sink[Any]):
    """Keeps values in the class, as a table would."""

    rows: dict[str, Any] = {}  # noqa: RUF012 - the table

    async def write(self, records: Sequence[Record[Any]]) -> None:
        Kept.rows.update({record.id: record.value for record in records})


def with_sink(sink: type[Sink[Any]] = Kept) -> StreamBuilder:
    builder = StreamBuilder("t")
    builder.from_collection([], name="source").sink(sink, name="table")
    return builder


def test_a_sink_is_the_real_one_and_shows_what_was_written_to_it(sage_driver: MakeDriver) -> None:
    Kept.rows.clear()
    driver = sage_driver(with_sink())
    driver.send(1, key="k")
    assert list(Kept.rows.values()) == [1]
    assert driver.outputs("table") == [1]
    (record,) = driver.records("table")
    assert (record.key, record.id) == (b"k", driver.records("source")[0].id)


def test_a_sink_that_fails_is_written_again(sage_driver: MakeDriver) -> None:
    Kept.rows.clear()
    driver = sage_driver(with_sink())
    driver.fail_next("table", ConnectionError("reset"))
    driver.send(1)
    assert driver.outputs("table") == []
    driver.advance(5)
    assert (driver.outputs("table"), list(Kept.rows.values())) == ([1], [1])


def test_what_a_sink_took_survives_a_crash(sage_driver: MakeDriver) -> None:
    Kept.rows.clear()
    driver = sage_driver(with_sink())
    driver.send(1)
    driver.crash()
    assert driver.outputs("table") == [1]


def test_functions_classes_and_sinks_can_be_replaced(sage_driver: MakeDriver) -> None:
    class Tenfold(Operator[int, int]):
        def process(self, value: int, ctx: Context) -> int:
            return value * 10

    async def slowly(value: int) -> int:
        await asyncio.sleep(1)
        return value + 1

    taken: list[int] = []
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source").map(double, name="first").map(double, name="second")
    stream.sink(Kept, name="table")
    Kept.rows.clear()
    driver = sage_driver(builder, {"first": Tenfold, "second": slowly, "table": taken.append})
    driver.send(1)
    driver.advance(2)
    assert (driver.outputs("first"), driver.outputs("second"), taken) == ([10], [11], [11])
    assert Kept.rows == {}


@pytest.mark.parametrize(
    ("step", "override", "message"),
    [
        ("nobody", double, "no step 'nobody'"),
        ("source", double, r"a source can't be overridden; use send\(\) in its place"),
        ("work", 3, "is not a function"),
        ("work", lambda: 1, "takes no value"),
        ("work", ScriptedChatModel([]), "double calls no chat model; override the step that does"),
    ],
)
def test_an_override_that_does_not_fit_is_refused_at_once(step: str, override: Any, message: str) -> None:
    with pytest.raises(InvalidTopology, match=message):
        TopologyDriver(simple(), {step: override})


def question_answering() -> StreamBuilder:
    builder = StreamBuilder("qa")
    stream: Any = builder.from_collection([], name="questions")
    (
        stream.map(DenseRetriever, {"collection": "handbook", "top_k": 1}, name="retrieve")
        .map(QAPromptor, name="prompt")
        .map(OpenAIGenerator, {"model": "local/smollm2"}, name="generate")
        .to("answers", name="answers")
    )
    return builder


def test_question_answering_without_a_service(sage_driver: MakeDriver) -> None:
    model = ScriptedChatModel([RateLimited("wait", retry_after=2), Delayed(5, "20 days.")])
    driver = sage_driver(question_answering(), overrides={"generate": model})
    driver.memory.create_collection("handbook").insert_many(["Leave is 20 days a year.", "Travel is by train."])
    driver.send({"query": "How many days of leave a year?"})
    driver.advance("1m")
    (answer,) = driver.outputs("answers")
    assert answer["answer"] == "20 days."
    assert [document["text"] for document in answer["documents"]] == ["Leave is 20 days a year."]
    assert len(model.requests) == 2
    assert "Leave is 20 days a year." in model.prompts[0]
    assert sum(driver.lag().values()) == 0


def test_a_chat_model_that_was_not_given_is_asked_for(sage_driver: MakeDriver) -> None:
    driver = sage_driver(question_answering())
    driver.memory.create_collection("handbook")
    with pytest.raises(InvalidTopology, match=r'give one: overrides=\{"generate": ScriptedChatModel'):
        driver.send({"query": "q"})


def test_the_memorys_embedder_can_be_chosen(sage_driver: MakeDriver) -> None:
    driver = sage_driver(simple(), embedder=MockTextEmbedder(32))
    assert driver.memory.create_collection("notes").dim == 32
