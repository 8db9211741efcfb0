import json
import logging
from pathlib import Path
from typing import Any

import pytest

from sage.errors import NotFound
from sage.model.record import Record
from sage_connectors import FileSource
from tests.unit.connectors.reading import Collector, read_all


def following(path: Path, **options: Any) -> FileSource:
    return FileSource(FileSource.Config(path=str(path), follow=True, poll_interval="10ms", **options))


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as handle:
        handle.write(text)


async def test_goes_on_with_a_growing_file_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    append(path, "one\ntw")
    async with Collector(following(path)) as reader:
        assert await reader.until(1) == ["one"]
        append(path, "o\nthree\n")
        assert await reader.until(3) == ["one", "two", "three"]


async def test_a_bounded_run_gives_an_unfinished_last_line_too(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    append(path, "one\ntw")
    assert [value for value, _ in await read_all(following(path))] == ["one", "tw"]


async def test_goes_on_after_a_kept_position(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    append(path, "one\ntwo\n")
    async with Collector(following(path)) as reader:
        await reader.until(2)
        position = json.loads(json.dumps(reader.items[0][1]))
    append(path, "three\n")
    async with Collector(following(path), position) as reader:
        assert await reader.until(2) == ["two", "three"]


async def test_follows_several_files_and_picks_up_new_ones(tmp_path: Path) -> None:
    append(tmp_path / "b.log", "b1\n")
    append(tmp_path / "c.log", "c1\n")
    async with Collector(following(tmp_path / "*.log")) as reader:
        await reader.until(2)
        append(tmp_path / "c.log", "c2\n")
        await reader.until(3)
        append(tmp_path / "a.log", "a1\n")
        await reader.until(4)
        append(tmp_path / "b.log", "b2\n")
        assert await reader.until(5) == ["b1", "c1", "c2", "a1", "b2"]
        positions = [position for _, position in reader.items]
    for index, position in enumerate(positions):
        rest = await read_all(following(tmp_path / "*.log"), json.loads(json.dumps(position)))
        assert sorted(value.value for value, _ in rest) == sorted(reader.values[index + 1 :])


async def test_a_row_keeps_its_identity_however_the_files_are_interleaved(tmp_path: Path) -> None:
    append(tmp_path / "a.log", "a1\n")
    append(tmp_path / "b.log", "b1\n")
    async with Collector(following(tmp_path / "*.log")) as reader:
        await reader.until(2)
        append(tmp_path / "a.log", "a2\n")
        await reader.until(3)
    first = {value.value: value.id for value, _ in reader.items if isinstance(value, Record)}
    again = {value.value: value.id for value, _ in await read_all(following(tmp_path / "*.log"))}
    assert first == again
    assert len(set(first.values())) == 3


async def test_a_truncated_file_is_read_from_its_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "app.log"
    append(path, "one\ntwo\n")
    async with Collector(following(path)) as reader:
        await reader.until(2)
        path.write_text("new\n")
        assert await reader.until(3) == ["one", "two", "new"]
    assert "truncated from 8 to 4 bytes" in caplog.text


async def test_a_rotated_file_is_finished_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "app.log"
    append(path, "one\n")
    async with Collector(following(path)) as reader:
        await reader.until(1)
        append(path, "two\nlast")
        path.rename(tmp_path / "app.log.1")
        path.write_text("three\n")
        assert await reader.until(4) == ["one", "two", "last", "three"]
    assert "rotated" in caplog.text


async def test_a_rotated_file_that_the_glob_still_names_is_not_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    append(path, "one\n")
    async with Collector(following(tmp_path / "app.log*")) as reader:
        await reader.until(1)
        append(path, "two\n")
        path.rename(tmp_path / "app.log.1")
        path.write_text("three\n")
        await reader.until(3)
        append(path, "four\n")
        assert sorted(await reader.until(4)) == ["four", "one", "three", "two"]


async def test_a_file_rotated_while_nobody_looked_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "app.log"
    append(path, "one\n")
    items = await read_all(following(path))
    kept = path.with_name("elsewhere")
    path.rename(kept)
    path.write_text("a much longer first line\n")
    rest = await read_all(following(path), items[-1][1])
    assert [value for value, _ in rest] == ["a much longer first line"]
    assert "replaced while nobody followed it" in caplog.text
    assert kept.stat().st_ino != path.stat().st_ino


async def test_waits_for_the_first_file_of_a_glob(tmp_path: Path) -> None:
    async with Collector(following(tmp_path / "*.log")) as reader:
        append(tmp_path / "a.log", "a1\n")
        assert await reader.until(1) == ["a1"]


async def test_a_missing_file_that_is_no_glob_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await read_all(following(tmp_path / "app.log"))


async def test_csv_waits_for_the_end_of_a_quoted_row(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    append(path, 'id,text\n1,one\n2,"two')
    async with Collector(following(path, format="csv")) as reader:
        await reader.until(1)
        append(path, '\nlines"\n')
        assert await reader.until(2) == [{"id": "1", "text": "one"}, {"id": "2", "text": "two\nlines"}]
