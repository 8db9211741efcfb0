"""What type checkers infer for streams. Never run: ``test_inference.py`` has mypy and pyright read it."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, assert_type

from sage.graph import DataStream, KeyedStream, StreamBuilder
from sage.model.json import Json
from sage.model.record import Record
from sage.spec.component import Operator, Sink, Source
from sage.spec.context import Context


class Lines(Source[str]):
    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[str, Json]]:
        yield "line", 1


class Shout(Operator[str, str]):
    async def process(self, value: str, ctx: Context) -> str:
        return value + "!"


class Length(Operator[str, int]):
    def process(self, value: str, ctx: Context) -> int:
        return len(value)


class Words(Operator[str, str]):
    def process(self, value: str, ctx: Context) -> Iterator[str]:
        yield from value.split()


class Answer(Operator[str | Mapping[str, Any], dict[str, Any]]):
    async def process(self, value: str | Mapping[str, Any], ctx: Context) -> dict[str, Any]:
        return {"answer": value}


class Numbers(Sink[int]):
    async def write(self, records: Sequence[Record[int]]) -> None: ...


def length(value: str) -> int:
    return len(value)


async def length_later(value: str) -> int:
    return len(value)


def length_with_ctx(value: str, ctx: Context) -> int:
    return len(value)


async def length_later_with_ctx(value: str, ctx: Context) -> int:
    return len(value)


def words(value: str) -> list[str]:
    return value.split()


def words_with_ctx(value: str, ctx: Context) -> Iterator[str]:
    yield from value.split()


async def words_later(value: str) -> AsyncIterator[str]:
    for word in value.split():
        yield word


async def words_later_with_ctx(value: str, ctx: Context) -> AsyncIterator[str]:
    for word in value.split():
        yield word


async def words_at_once(value: str) -> list[str]:
    return value.split()


def lengths(values: list[str]) -> list[int]:
    return [len(value) for value in values]


async def lengths_later(values: list[str]) -> list[int]:
    return [len(value) for value in values]


def starts(env: StreamBuilder) -> None:
    assert_type(env.from_source(Lines), DataStream[str])
    assert_type(env.from_source(Lines, {"path": "a.txt"}, name="lines"), DataStream[str])
    assert_type(env.from_collection([1, 2]), DataStream[int])
    assert_type(env.from_topic("t"), DataStream[Any])
    assert_type(env.from_topic("t", format="bytes"), DataStream[bytes])
    assert_type(env.from_topic("t", format="str"), DataStream[str])
    assert_type(env.from_topic("t", type=dict[str, int]), DataStream[dict[str, int]])


def maps(lines: DataStream[str]) -> None:
    assert_type(lines.map(length), DataStream[int])
    assert_type(lines.map(length_later), DataStream[int])
    assert_type(lines.map(length_with_ctx), DataStream[int])
    assert_type(lines.map(length_later_with_ctx), DataStream[int])
    assert_type(lines.map(Shout), DataStream[str])
    assert_type(lines.map(Length, {"any": 1}, concurrency=2), DataStream[int])
    assert_type(lines.map(Answer).map(Answer), DataStream[dict[str, Any]])
    assert_type(lines.map(lambda value: len(value) + 1), DataStream[int])
    assert_type(lines.map(str.upper), DataStream[str])
    assert_type(lines.map(length, name="n", partitions=2, retry={"attempts": 2}), DataStream[int])


def others(lines: DataStream[str]) -> None:
    assert_type(lines.flatmap(words), DataStream[str])
    assert_type(lines.flatmap(words_with_ctx), DataStream[str])
    assert_type(lines.flatmap(words_later), DataStream[str])
    assert_type(lines.flatmap(words_later_with_ctx), DataStream[str])
    assert_type(lines.flatmap(words_at_once), DataStream[str])
    assert_type(lines.flatmap(lambda value: [value] if value else []), DataStream[str])
    assert_type(lines.flatmap(Words), DataStream[str])
    assert_type(lines.filter(lambda value: value != ""), DataStream[str])
    assert_type(lines.map_batches(lengths, max_size=8, max_wait="5ms"), DataStream[int])
    assert_type(lines.map_batches(lengths_later, max_size=8, max_wait=0.1), DataStream[int])
    assert_type(lines.key_by(length), KeyedStream[str])
    assert_type(lines.key_by("field").map(length), DataStream[int])
    assert_type(lines.union(lines.map(str.upper)), DataStream[str])
    branches = lines.route({"long": lambda value: len(value) > 9})
    assert_type(branches.long, DataStream[str])
    assert_type(branches["other"], DataStream[str])
    assert_type(lines.map(length).collect(), list[int])
    lines.map(length).sink(Numbers)
