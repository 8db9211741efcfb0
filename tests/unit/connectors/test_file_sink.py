import asyncio
import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import orjson
import pytest

from sage.errors import DiskFull, InvalidTopology, NotFound, RecordFailure, SageError, Unauthorized
from sage.model.record import Record
from sage_connectors import FileSink
from sage_connectors.files.append_log import AppendLog
from tests.unit.connectors.reading import assert_takes_a_batch_twice, open_context, opened


def sink(path: Path, **options: Any) -> FileSink:
    return FileSink(FileSink.Config(path=str(path), **options))


def records(*numbers: int) -> list[Record[Any]]:
    return [Record({"n": number}, id=f"id-{number}") for number in numbers]


def numbers_in(path: Path) -> list[int]:
    return [orjson.loads(line)["n"] for line in path.read_bytes().splitlines()]


async def test_appends_json_lines_to_a_file_that_it_makes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    out = await opened(sink(path))
    await out.write([Record({"answer": "二十天"}, id="a"), Record(None, id="b"), Record("text", id="c")])
    assert path.read_text("utf-8") == '{"answer":"二十天"}\nnull\n"text"\n'


async def test_lines_are_text_as_it_is(tmp_path: Path) -> None:
    out = await opened(sink(tmp_path / "out.txt", format="lines"))
    await out.write([Record("plain", id="a"), Record({"n": 1}, id="b")])
    assert (tmp_path / "out.txt").read_text() == 'plain\n{"n":1}\n'
    with pytest.raises(RecordFailure, match="line end"):
        await out.write([Record("two\nlines", id="c")])


async def test_writes_each_record_once_also_in_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    await assert_takes_a_batch_twice(await opened(sink(path)), records(1, 2, 3))
    again = await opened(sink(path))
    await again.write(records(2, 3, 4, 4))
    assert numbers_in(path) == [1, 2, 3, 4]


async def test_keeps_what_was_in_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"n":0}\n')
    await (await opened(sink(path))).write(records(1))
    assert numbers_in(path) == [0, 1]


async def test_two_writers_share_a_file_and_its_ids(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    one, two = await opened(sink(path)), await opened(sink(path))
    await asyncio.gather(
        *(each.write(records(*range(start, start + 20))) for start in range(0, 100, 10) for each in (one, two))
    )
    assert sorted(numbers_in(path)) == list(range(110))


@pytest.mark.parametrize("cut", range(1, 25))
async def test_a_batch_torn_by_a_crash_is_mended_and_completed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "out.jsonl"
    out = await opened(sink(path))
    await out.write(records(1))
    await out.write(records(2, 3, 4))
    os.truncate(path, path.stat().st_size - cut)  # what a writer killed between announcing and appending leaves
    again = await opened(sink(path))
    await again.write(records(2, 3, 4, 5))
    assert numbers_in(path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cut", [1, 5, 20])
async def test_a_crash_while_announcing_leaves_no_trace(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "out.jsonl"
    out = await opened(sink(path))
    await out.write(records(1))
    size = path.stat().st_size
    await out.write(records(2, 3))
    ids = tmp_path / "out.jsonl.ids"
    os.truncate(ids, ids.stat().st_size - cut)
    os.truncate(path, size)
    await (await opened(sink(path))).write(records(2, 3))
    assert numbers_in(path) == [1, 2, 3]


async def test_killed_at_any_moment_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Real kills of a real writer; the batches overlap, as those of a replay do."""
    path = tmp_path / "out.jsonl"
    program = textwrap.dedent("""
        import asyncio, sys
        from sage.model.record import Record
        from sage_connectors import FileSink
        async def main():
            out = FileSink(FileSink.Config(path=sys.argv[1]))
            print("ready", flush=True)
            for start in range(0, 5000, 5):
                await out.write([Record({"n": n, "fill": "x" * 500}, id=str(n)) for n in range(start, start + 10)])
                if start == int(sys.argv[2]):
                    print("there", flush=True)
        asyncio.run(main())
    """)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([".", "connectors"])}
    for stop_at in (0, 35, 120):
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs in this loop
            [sys.executable, "-c", program, str(path), str(stop_at)], env=environ, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "there\n"
        process.kill()
        process.wait(10)
        process.stdout.close()
    out = await opened(sink(path))
    written = numbers_in(path)
    assert written == list(range(len(written)))
    assert len(written) >= 130
    await out.write([Record({"n": n}, id=str(n)) for n in range(len(written) + 3)])
    assert numbers_in(path) == list(range(len(written) + 3))


async def test_a_full_disk_is_said_and_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    out = await opened(sink(path))
    await out.write(records(1))
    real_write, calls = os.write, []

    def full_after_half(handle: int, data: Any) -> int:
        calls.append(handle)
        if len(calls) == 2:  # the announcement fits
            real_write(handle, bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(handle, data)

    monkeypatch.setattr(os, "write", full_after_half)
    with pytest.raises(DiskFull) as raised:
        await out.write(records(2, 3))
    assert str(path) in str(raised.value)
    monkeypatch.undo()
    assert numbers_in(path) == [1]
    await out.write(records(2, 3))
    assert numbers_in(path) == [1, 2, 3]


async def test_a_file_that_was_moved_away_is_started_afresh(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    out = await opened(sink(path))
    await out.write(records(1))
    await out.write(records(2))
    path.rename(tmp_path / "old.jsonl")
    await out.write(records(3))
    assert numbers_in(path) == [3]


def test_remembers_the_newest_ids_in_bounded_space(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    log, other = AppendLog(path, remember=100), AppendLog(path, remember=100)
    other.open()
    for start in range(0, 1000, 10):
        log.append([(str(number), b"%d\n" % number) for number in range(start, start + 10)])
    assert len((tmp_path / "out.txt.ids").read_bytes().splitlines()) <= 20
    other.append([(str(number), b"again\n") for number in range(900, 1001)])
    assert path.read_bytes().splitlines()[-2:] == [b"999", b"again"]


async def test_a_damaged_ids_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.ids").write_text("nonsense\n")
    with pytest.raises(SageError, match=r"out\.jsonl\.ids: damaged at byte 0"):
        await sink(tmp_path / "out.jsonl").open(open_context())


async def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unauthorized, match="choose another path"):
        await sink(tmp_path / "file" / "out.jsonl").open(open_context())
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unauthorized, match="choose another path"):
        await sink(tmp_path / "folder").open(open_context())
    with pytest.raises(Unauthorized, match="File name too long; choose another path"):
        await sink(tmp_path / ("x" * 300)).open(open_context())
    with pytest.raises(NotFound, match="no home folder"):
        sink(Path("~nobody-of-this-name/out.jsonl"))


async def test_a_pipe_or_device_is_refused_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidTopology, match="is a pipe or device"):
        await sink(tmp_path / "pipe").open(open_context())
    assert os.listdir(tmp_path) == ["pipe"]  # noqa: PTH208 - no path is needed


async def test_a_last_line_of_others_without_an_end_stays_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"n":0}\n{"n":1}')
    await (await opened(sink(path))).write(records(2, 3))
    assert numbers_in(path) == [0, 1, 2, 3]
    again = await opened(sink(path))
    await again.write(records(2, 3, 4))
    assert numbers_in(path) == [0, 1, 2, 3, 4]


async def test_a_torn_batch_behind_such_a_line_is_mended_too(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"n":0}')
    await (await opened(sink(path))).write(records(1, 2))
    os.truncate(path, len('{"n":0}\n{"n":1}\n{"n'))
    await (await opened(sink(path))).write(records(1, 2))
    assert numbers_in(path) == [0, 1, 2]
