"""Fused steps as one call per record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import RecordFailure
from sage.graph.stream import DataStream
from sage.model.identity import extended
from sage.runtime.batches.chain import Chain
from sage.runtime.steps.codec import BYTES_MARK
from sage.runtime.steps.outputs import Output
from sage.spec.context import Context
from tests.unit.runtime.bench import IN, Bench
from tests.unit.runtime.messages import message


class Chained:
    """A chain, and the outputs of one value through it."""

    def __init__(self, build: Callable[[DataStream[Any]], Any], stage: str | None = None, format: str = "json") -> None:
        bench = Bench(build, stage=stage, format=format)
        self.stage = bench.setting.stage
        self.chain = Chain(bench.setting.steps, bench.setting.targets())
        self.steps = {step.name: step for step in bench.setting.steps}

    def run(self, value: Any, key: bytes | None = None, headers: Any = None) -> list[Output]:
        self.chain.restart()
        came = message(value, key=key, headers=headers, topic=IN)
        return self.chain.run(value, came, "root")

    def values(self, value: Any) -> list[Any]:
        return [orjson.loads(output.value) for output in self.run(value) if output.value is not None]


def words(line: str) -> Iterator[str]:
    yield from line.split()


def test_maps_and_filters_run_in_order_and_keep_key_and_id() -> None:
    chained = Chained(
        lambda s: s.map(lambda v: v + 1, name="more").filter(lambda v: v > 1, name="big").map(str, name="text")
    )
    assert len(chained.stage.steps) == 3
    assert chained.run(5, key=b"k") == [Output("t.text", b'"6"', b"k", "root")]
    assert chained.run(0) == []


def test_what_a_fused_step_does_to_an_item_is_not_seen_in_the_others() -> None:
    def split(value: Any) -> Iterator[Any]:
        shared = {"documents": ["d"]}
        for part in value:
            yield {"part": part, "all": shared}
            yield shared

    def add(item: Any) -> Any:
        item.get("all", item)["documents"].append(item.get("part", "alone"))
        item["new"] = True
        return item

    chained = Chained(lambda s: s.flatmap(split, name="split").map(add, name="add"))
    assert len(chained.stage.steps) == 2
    assert chained.values(["a", "b"]) == [
        {"part": "a", "all": {"documents": ["d", "a"]}, "new": True},
        {"documents": ["d", "alone"], "new": True},
        {"part": "b", "all": {"documents": ["d", "b"]}, "new": True},
        {"documents": ["d", "alone"], "new": True},
    ]


def test_a_generator_that_fails_after_its_items_have_gone_on_is_the_one_that_failed() -> None:
    def split(value: Any) -> Iterator[Any]:
        yield value
        raise ValueError("late")

    chained = Chained(lambda s: s.flatmap(split, name="split").map(str, name="text"))
    with pytest.raises(ValueError, match="late"):
        chained.run(1)
    assert chained.chain.current.name == "split"


def test_every_item_of_a_flatmap_goes_on_under_an_id_of_its_own() -> None:
    chained = Chained(lambda s: s.flatmap(words, name="split").map(str.upper, name="upper"))
    outputs = chained.run("a b a", key=b"k")
    assert [output.value for output in outputs] == [b'"A"', b'"B"', b'"A"']
    assert [output.record_id for output in outputs] == [extended("root", "split", n) for n in range(3)]
    assert {output.key for output in outputs} == {b"k"}


def test_flatmaps_in_a_row_extend_ids_each_by_its_step() -> None:
    chained = Chained(
        lambda s: s.flatmap(lambda v: v, name="outer").flatmap(lambda v: [v, -v], name="inner").map(abs, name="abs")
    )
    outputs = chained.run([1, 2])
    assert [output.value for output in outputs] == [b"1", b"1", b"2", b"2"]
    assert outputs[3].record_id == extended(extended("root", "outer", 1), "inner", 1)
    assert len({output.record_id for output in outputs}) == 4


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_a_flatmap_that_gives_nothing_is_fine(nothing: Any) -> None:
    assert Chained(lambda s: s.flatmap(lambda _: nothing, name="none").map(str, name="text")).run(1) == []


@pytest.mark.parametrize(
    ("key", "data"), [("a", b"a"), (0, b"0"), ("", b""), (False, b"false"), (None, None), (b"\xff", b"\xff")]
)
def test_key_by_gives_the_record_another_key_and_leaves_the_value(key: Any, data: bytes | None) -> None:
    (output,) = Chained(lambda s: s.key_by(lambda _: key, name="keyed")).run({"v": 1}, key=b"old")
    assert (output.key, output.value) == (data, b'{"v":1}')


def test_key_by_takes_a_field_of_the_value() -> None:
    chained = Chained(lambda s: s.key_by("user", name="keyed"))
    (output,) = chained.run({"user": "ann"})
    assert output.key == b"ann"
    with pytest.raises(KeyError):
        chained.run({"name": "ann"})


def test_a_route_takes_the_first_branch_that_fits_and_else_the_default() -> None:
    chained = Chained(
        lambda s: s.route({"small": lambda v: v < 10, "even": lambda v: v % 2 == 0}, default="rest", name="sort")
    )
    topics = {value: [output.topic for output in chained.run(value)] for value in (2, 12, 13)}
    assert topics == {2: ["t.sort-small"], 12: ["t.sort-even"], 13: ["t.sort-rest"]}


def test_a_record_that_no_branch_takes_fails_with_the_branches_names() -> None:
    chained = Chained(lambda s: s.route({"small": lambda v: v < 10}, default=None, name="sort"))  # type: ignore[arg-type]
    with pytest.raises(RecordFailure, match="no branch takes this record: small"):
        chained.run(50)


def emitting(value: int, ctx: Context) -> int:
    ctx.emit("odd", value * 10)
    ctx.emit("odd", value * 100)
    return value


def with_branch(stream: DataStream[Any]) -> None:
    stream.map(emitting, name="mark").branch("odd").map(str, name="odd")


def test_what_is_emitted_goes_to_its_branch_beside_the_output_under_ids_of_its_own() -> None:
    outputs = Chained(with_branch, stage="mark").run(1, key=b"k")
    assert [(output.topic, output.value) for output in outputs] == [
        ("t.mark-odd", b"10"), ("t.mark-odd", b"100"), ("t.mark", b"1"),
    ]  # fmt: skip
    assert len({output.record_id for output in outputs}) == 3
    assert outputs[-1].record_id == "root"


def test_emitting_to_a_branch_that_nobody_reads_fails_the_record() -> None:
    def stray(value: int, ctx: Context) -> int:
        ctx.emit("stray", value)
        return value

    with pytest.raises(RecordFailure, match="no branch 'stray' is read; branches of this step: none"):
        Chained(lambda s: s.map(stray, name="mark")).run(1)


def test_what_a_failed_record_emitted_does_not_stick_to_the_next() -> None:
    def sometimes(value: int, ctx: Context) -> int:
        ctx.emit("odd", value)
        if value < 0:
            raise ValueError(value)
        return value

    chained = Chained(lambda s: s.map(sometimes, name="mark").branch("odd").map(str, name="odd"), stage="mark")
    with pytest.raises(ValueError, match="-1"):
        chained.run(-1)
    assert chained.values(2) == [2, 2]


def test_a_record_that_fails_at_its_last_output_leaves_none_behind_and_names_its_step() -> None:
    chained = Chained(lambda s: s.flatmap(lambda v: v, name="split").map(lambda v: 1 / v, name="divide"))
    with pytest.raises(ZeroDivisionError):
        chained.run([1, 2, 0])
    assert chained.chain.current.name == "divide"
    with pytest.raises(TypeError):
        chained.run(7)
    assert chained.chain.current.name == "split"


def test_an_output_without_a_json_form_is_the_failure_of_the_step_that_gave_it() -> None:
    chained = Chained(lambda s: s.map(lambda _: object(), name="odd").map(str, name="text"))
    with pytest.raises(RecordFailure, match="has no JSON form"):
        chained.run(1)
    assert chained.chain.current.name == "odd"


def test_a_copy_passes_the_bytes_on_unread_with_their_mark() -> None:
    chained = Chained(lambda s: s.to("out"), stage=None)
    assert chained.stage.steps == ()
    came = message(topic=IN, raw=b"\xff\x00", key=b"k", headers=[BYTES_MARK])
    chained.chain.restart()
    (output,) = chained.chain.run(b"ignored", came, "root")
    assert output == Output("out", b"\xff\x00", b"k", "root", marked=True)
    (plain,) = chained.run({"a": 1})
    assert plain.marked is False


def test_values_are_written_as_each_topic_says() -> None:
    chained = Chained(lambda s: s.filter(bool, name="some"), format="str")
    (output,) = chained.run("héllo")
    assert output.value == "héllo".encode()


def test_records_are_counted_once_however_many_tries_they_took() -> None:
    chained = Chained(lambda s: s.flatmap(lambda v: v, name="split").filter(bool, name="some"))
    for _ in range(3):
        chained.run([1, 0, 2])
    chained.chain.count(failed=False)
    split, some = chained.steps["split"].counters, chained.steps["some"].counters
    assert (split.read, split.written, some.read, some.written) == (1, 3, 3, 2)


@given(st.lists(st.lists(st.integers(-5, 5), max_size=5), max_size=5))
def test_a_chain_is_the_composition_of_its_steps(values: list[list[int]]) -> None:
    chained = Chained(
        lambda s: (
            s.flatmap(lambda v: v, name="split").filter(lambda v: v % 2, name="odd").map(lambda v: v * v, name="square")
        )
    )
    for value in values:
        assert chained.values(value) == [item * item for item in value if item % 2]
