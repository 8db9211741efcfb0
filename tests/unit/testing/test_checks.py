"""The checks for authors: good components pass, and each way to be wrong is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from sage.errors import SageError, StageStopped
from sage.model.json import Json
from sage.model.record import Record
from sage.operators import DenseRetriever, OpenAIGenerator
from sage.spec.component import Operator, Sink, Source, UnboundedSource
from sage.spec.context import Context, OpenContext
from sage.testing import ScriptedChatModel, check_operator, check_sink, check_source, checks
from sage_connectors import FileSink, FileSource

# ------------------------------------------------------------------------------------------- operators


class Shout(Operator[str, str]):
    class Config(BaseModel):
        suffix: str = "!"

    def process(self, value: str, ctx: Context) -> str:
        return value.upper() + str(self.config.suffix)


class Words(Operator[str, str]):
    def process(self, value: str, ctx: Context) -> Iterator[str]:
        yield from value.split()


class Slow(Operator[str, str]):
    async def process(self, value: str, ctx: Context) -> str:
        await asyncio.sleep(120)
        return value


def test_an_operator_that_works_gives_its_outputs() -> None:
    assert check_operator(Shout, {"suffix": "?"}, ["a", "b"]) == ["A?", "B?"]
    assert check_operator(Words, None, ["a b", "", "c"]) == ["a", "b", "c"]
    assert check_operator(Slow, None, ["a", "b"]) == ["a", "b"]


async def test_a_check_can_be_made_inside_a_running_loop() -> None:
    assert check_operator(Shout, None, ["a"]) == ["A!"]


def test_an_operator_with_memory_and_a_model_is_checked_without_services() -> None:
    def fill(memory: Any) -> None:
        memory.create_collection("handbook").insert("Leave is 20 days.")

    (found,) = check_operator(DenseRetriever, {"collection": "handbook"}, ["How many days?"], prepare=fill)
    assert found["documents"][0]["text"] == "Leave is 20 days."
    asked = {"query": "q", "messages": [{"role": "user", "content": "q"}]}
    (answered,) = check_operator(OpenAIGenerator, None, [asked], chat_model=ScriptedChatModel(["20 days."]))
    assert answered["answer"] == "20 days."


def test_a_configuration_that_does_not_fit_is_the_error_that_users_get() -> None:
    with pytest.raises(SageError, match="suffi"):
        check_operator(Shout, {"suffi": "?"}, ["a"])


def test_an_operator_without_values_is_not_checked() -> None:
    with pytest.raises(AssertionError, match="give at least one value"):
        check_operator(Shout)


def test_an_operator_that_fails_for_a_value_is_told_with_the_value() -> None:
    with pytest.raises(AssertionError, match=r"Shout failed for b'3': AttributeError"):
        check_operator(Shout, None, ["a", 3])


class Opaque(Operator[str, object]):
    def process(self, value: str, ctx: Context) -> object:
        return object()


def test_an_output_without_a_form_is_told() -> None:
    with pytest.raises(AssertionError, match="RecordFailure: the output object has no JSON form"):
        check_operator(Opaque, None, ["a"])


class Shuffled(Operator[int, int]):
    def process_batch(self, values: Sequence[int], contexts: Sequence[Context]) -> Sequence[int]:
        return list(reversed(values))


class Short(Operator[int, int]):
    def process_batch(self, values: Sequence[int], contexts: Sequence[Context]) -> Sequence[int]:
        return list(values)[:1]


class Batched(Operator[int, float]):
    def process_batch(self, values: Sequence[int], contexts: Sequence[Context]) -> Sequence[float]:
        return [value + len(values) * 1e-9 for value in values]


def test_a_batch_must_give_one_result_per_value_in_order() -> None:
    assert check_operator(Batched, None, [1, 2]) == pytest.approx([1, 2])
    with pytest.raises(AssertionError, match="result 0 is 2 in a batch and 1 alone"):
        check_operator(Shuffled, None, [1, 2])
    with pytest.raises(AssertionError, match="process_batch: 2 values gave 1 results"):
        check_operator(Short, None, [1, 2])


class Once(Operator[str, str]):
    made: ClassVar[int] = 0

    async def open(self, ctx: OpenContext) -> None:
        Once.made += 1
        if Once.made > 1:
            raise RuntimeError("the port is taken by the one before")

    def process(self, value: str, ctx: Context) -> str:
        return value


def test_an_operator_that_cannot_be_started_again_is_told() -> None:
    with pytest.raises(StageStopped, match=r'step "checked": opening .*Once failed: RuntimeError: the port is taken'):
        check_operator(Once, None, ["a", "b"])


# --------------------------------------------------------------------------------------------- sources


class Numbers(Source[int]):
    """Right, unless a test's subclass says otherwise."""

    def tasks(self) -> Sequence[str]:
        return ("even", "odd")

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        first = 0 if task == "even" else 1
        start = first if position is None else int(position["at"]) + 2  # type: ignore[index, call-overload, arg-type]
        for number in range(start, 6, 2):
            yield number, {"at": number}


def test_a_source_that_works_gives_its_values() -> None:
    assert check_source(Numbers) == [0, 2, 4, 1, 3, 5]


def test_the_file_source_passes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    assert check_source(FileSource, {"path": str(tmp_path / "a.txt")}) == ["one", "two", "three"]


class NoTasks(Numbers):
    def tasks(self) -> Sequence[str]:
        return ()


class SameTasks(Numbers):
    def tasks(self) -> Sequence[str]:
        return ("even", "even")


class ChanceTasks(Numbers):
    def tasks(self) -> Sequence[str]:
        return (f"task-{id(self)}",)


class Opaquely(Numbers):
    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        yield 1, object()  # type: ignore[misc]


class Tuples(Numbers):
    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        yield 1, (1, 2)  # type: ignore[misc]


class Standing(Numbers):
    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        yield 1, "here"
        yield 2, "here"


class Forgetful(Numbers):
    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        for number in range(3):
            yield number, number


class Endless(Numbers):
    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        number = 0
        while True:
            await asyncio.sleep(0.01)
            number += 1
            yield number, number


class Honest(Endless):
    def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[Any, Json]]:
        if bounded:
            raise UnboundedSource
        return super().read(task, position, bounded=bounded)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (NoTasks, r"NoTasks.tasks\(\) is empty"),
        (SameTasks, "names a task twice"),
        (ChanceTasks, "differ from one instance to the next"),
        (Opaquely, "of item 0 is not JSON"),
        (Tuples, r"position \(1, 2\) of item 0 is not the same after JSON"),
        (Standing, "items 0 and 1 have the same position 'here'"),
        (Forgetful, r"task 'even' after position 0: expected 2 items, beginning \(1, 1\); got 3, beginning \(0, 0\)"),
        (Endless, "a bounded read did not end within"),
    ],
)
def test_each_way_for_a_source_to_be_wrong_is_told(
    source: type[Source[Any]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "READ_SECONDS", 0.3)
    with pytest.raises(AssertionError, match=message):
        check_source(source)


def test_a_source_that_says_it_never_ends_is_believed() -> None:
    assert check_source(Honest) == []


# ----------------------------------------------------------------------------------------------- sinks


class Table(Sink[Any]):
    """Right: a dictionary by id."""

    rows: ClassVar[dict[str, Any]] = {}

    async def write(self, records: Sequence[Record[Any]]) -> None:
        Table.rows.update({record.id: record.value for record in records})


class Log(Sink[Any]):
    lines: ClassVar[list[Any]] = []

    async def write(self, records: Sequence[Record[Any]]) -> None:
        Log.lines.extend(record.value for record in records)


class Session(Sink[Any]):
    """Knows what it has written, but only until it is restarted."""

    lines: ClassVar[list[Any]] = []

    async def open(self, ctx: OpenContext) -> None:
        self.seen: set[str] = set()

    async def write(self, records: Sequence[Record[Any]]) -> None:
        Session.lines.extend(record.value for record in records if record.id not in self.seen)
        self.seen.update(record.id for record in records)


class Lazy(Session):
    async def write(self, records: Sequence[Record[Any]]) -> None:
        self.kept = records

    async def close(self) -> None:
        Session.lines.extend(record.value for record in self.kept)


def test_a_sink_that_works_gives_its_contents() -> None:
    Table.rows.clear()
    assert list(check_sink(Table, None, [1, 2, 3], lambda: dict(Table.rows)).values()) == [1, 2, 3]


def test_the_file_sink_passes(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    held = check_sink(FileSink, {"path": str(path)}, [{"n": 1}, {"n": 2}], lambda: lines_of(path))
    assert [json.loads(line) for line in held] == [{"n": 1}, {"n": 2}]


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_sink_that_writes_twice_is_told_at_once() -> None:
    Log.lines.clear()
    with pytest.raises(AssertionError, match="3 records were written, some of them twice, and it holds 5"):
        check_sink(Log, None, [1, 2, 3], lambda: list(Log.lines))


def test_a_sink_that_forgets_at_a_restart_is_told() -> None:
    Session.lines.clear()
    with pytest.raises(AssertionError, match="the same batch was written after a restart, and the contents changed"):
        check_sink(Session, None, [1, 2], lambda: list(Session.lines))


def test_a_sink_that_writes_only_when_it_is_closed_is_told() -> None:
    Session.lines.clear()
    with pytest.raises(AssertionError, match=r"records must be there when write\(\) returns"):
        check_sink(Lazy, None, [1, 2], lambda: list(Session.lines))


def test_a_sink_is_checked_with_several_values() -> None:
    with pytest.raises(AssertionError, match="give at least two values"):
        check_sink(Table, None, [1], dict)


class Total(BaseModel):
    n: int = 0


class Counting(Operator[str, int]):
    def process(self, value: str, ctx: Context) -> Iterator[int]:
        ctx.state.n += 1
        yield ctx.state.n


class CountingInItself(Operator[str, int]):
    """Wrong: what it counts dies with it."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.n = 0

    def process(self, value: str, ctx: Context) -> Iterator[int]:
        self.n += 1
        yield self.n


def test_an_operator_with_state_is_killed_in_mid_work_and_counts_each_value_once() -> None:
    assert check_operator(Counting, values=["a", "b", "c", "d"], key="k", state=Total) == [1, 2, 3, 4]


def test_state_that_an_operator_keeps_in_itself_is_seen_to_be_lost() -> None:
    assert check_operator(CountingInItself, values=["a", "b", "c", "d"], key="k") != [1, 2, 3, 4]


def test_an_operator_is_called_again_for_the_value_at_which_it_was_killed() -> None:
    seen: list[str] = []

    class Seeing(Operator[str, str]):
        def process(self, value: str, ctx: Context) -> str:
            seen.append(value)
            return value

    assert check_operator(Seeing, values=["a", "b", "c"]) == ["a", "b", "c"]
    assert seen == ["a", "b", "b", "c"]
