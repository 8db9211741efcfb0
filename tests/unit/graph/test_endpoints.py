from typing import Any

import pytest
from pydantic import BaseModel

from sage.graph import StreamBuilder
from sage.graph.endpoints import Print, collect_into, collection_of
from sage.model.record import Record


async def read(source: Any, position: Any = None) -> list[Any]:
    return [pair async for pair in source.read("0", position, bounded=True)]


async def test_a_collection_goes_on_after_a_position() -> None:
    source = collection_of(iter("abc"))()
    assert await read(source) == [("a", 1), ("b", 2), ("c", 3)]
    assert await read(source, 2) == [("c", 3)]
    assert await read(source, 3) == []


async def test_a_record_that_is_written_again_is_collected_once() -> None:
    values: list[Any] = []
    sink = collect_into(values)
    first, second = Record("a", id="1"), Record("b", id="2")
    await sink().write([first])
    await sink().write([first, second, Record("no id"), Record("no id")])
    assert values == ["a", "b", "no id", "no id"]


async def test_two_collects_do_not_mix() -> None:
    env = StreamBuilder("qa")
    stream = env.from_collection([1])
    one, two = stream.collect(), stream.collect()
    await env.build().by_name["collect"].target().write([Record(1, id="a")])
    assert (one, two) == ([1], [])


async def test_print_writes_text_as_it_is_and_the_rest_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    class Answer(BaseModel):
        text: str

    values = ["plain", {"a": "ü"}, None, b"raw\xff", Answer(text="x")]
    await Print().write([Record(value) for value in values])
    assert capsys.readouterr().out == 'plain\n{"a":"ü"}\nnull\nraw\\xff\n{"text":"x"}\n'
