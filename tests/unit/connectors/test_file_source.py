import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sage.errors import DecodeFailure, InvalidTopology, NotFound, RecordTooLarge
from sage_connectors import FileSource
from sage_connectors.files import blocks
from tests.unit.connectors.reading import assert_resumes_at_every_position, open_context, read_all, values_of


def source(path: Path | str, **options: Any) -> FileSource:
    return FileSource(FileSource.Config(path=str(path), **options))


async def test_gives_lines_without_their_ends_and_skips_blank_ones(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_bytes("one\r\n\n  \ntwo 二\n  three".encode())
    assert await values_of(source(tmp_path / "q.txt")) == ["one", "two 二", "  three"]


async def test_positions_count_all_bytes_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes("一\n\ntwo".encode())
    assert [position for _, position in await read_all(source(path))] == [
        {"file": str(path), "byte": 4, "line": 1},
        {"file": str(path), "byte": 8, "line": 3},
    ]


async def test_only_line_feeds_end_a_line(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("a\u2028b\x0cc\nd\n", encoding="utf-8")
    assert await values_of(source(tmp_path / "q.txt")) == ["a\u2028b\x0cc", "d"]


async def test_skips_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n')
    assert await values_of(source(tmp_path / "q.jsonl", format="jsonl")) == [{"a": 1}, {"a": 2}]
    await assert_resumes_at_every_position(source(tmp_path / "q.jsonl", format="jsonl"))


async def test_reads_the_files_of_a_glob_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, text in {"b.txt": "3\n4\n", "a.txt": "1\n2", "deep/c.txt": "5\n", "note.md": "no\n"}.items():
        (tmp_path / name).write_text(text)
    everything = source(tmp_path / "**/*.txt")
    assert await values_of(everything) == ["1", "2", "3", "4", "5"]
    await assert_resumes_at_every_position(everything)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("lines", "a\n\nb\r\n世界\nlast"),
        ("jsonl", '{"a": "世界"}\n\n[1, 2]\n"text"\nnull\n3'),
        ("csv", 'id,text\n1,"two\nlines, one ""field"""\n\n2,世界\n3,'),
        ("document", "# One\n\ntext\n"),
    ],
)
async def test_goes_on_after_every_position_that_it_gave(tmp_path: Path, form: str, text: str) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    (tmp_path / "b.txt").write_text(text, encoding="utf-8")
    await assert_resumes_at_every_position(source(tmp_path / "*.txt", format=form))


async def test_csv_rows_are_objects_with_the_names_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text('id;text\n1;"two\nlines"\n\n2;"a ""b"""\n')
    assert await values_of(source(tmp_path / "q.csv", format="csv", delimiter=";")) == [
        {"id": "1", "text": "two\nlines"},
        {"id": "2", "text": 'a "b"'},
    ]


async def test_documents_are_whole_files_named_from_their_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "docs" / "hr").mkdir(parents=True)
    (tmp_path / "docs" / "hr" / "leave.md").write_text("# Leave\n20 days.\n")
    (tmp_path / "docs" / "假期.txt").write_text("二十天\n", encoding="utf-8")
    (tmp_path / "docs" / "logo.png").write_bytes(b"\x89PNG")
    (tmp_path / "docs" / ".hidden.md").write_text("no")
    documents = source(tmp_path / "docs", format="document")
    await documents.open(open_context())
    assert await values_of(documents) == [
        {"path": "hr/leave.md", "text": "# Leave\n20 days.\n"},
        {"path": "假期.txt", "text": "二十天\n"},
    ]
    assert "logo.png" in caplog.text
    assert (await values_of(source(tmp_path / "docs/**/*.md", format="document")))[0]["path"] == "hr/leave.md"


@pytest.mark.parametrize("path", ["missing.txt", "missing-*.txt"])
async def test_a_missing_file_is_named_with_the_working_directory(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound) as raised:
        await source(path).open(open_context())
    assert path in str(raised.value)
    assert str(tmp_path) in str(raised.value)
    assert raised.value.exit_code == 4


async def test_a_folder_of_rows_is_refused_with_the_glob_to_use(tmp_path: Path) -> None:
    with pytest.raises(InvalidTopology, match=r"glob, such as .*/\*"):
        await source(tmp_path).open(open_context())


async def test_rows_before_one_that_is_not_utf8_are_given_and_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "q.txt"
    path.write_bytes("好的\n第二行\n".encode() + "你好，世界".encode("gb18030") + b"\nafter\n")
    given: list[Any] = []
    with pytest.raises(DecodeFailure) as raised:
        async for value, _ in source(path).read("0", None, bounded=True):
            given.append(value)
    assert given == ["好的", "第二行"]
    message = str(raised.value)
    assert message.startswith(f"{path}:3: not UTF-8: byte 0xc4 at byte 17 ")
    assert f"iconv -f GB18030 -t UTF-8 {path}" in message


async def test_reads_other_encodings_when_told(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_bytes("假期\n天数\n".encode("gb18030"))
    assert await values_of(source(tmp_path / "q.txt", encoding="gb18030")) == ["假期", "天数"]


@pytest.mark.parametrize(
    ("data", "guess"), [("café\n".encode("latin-1"), "WINDOWS-1252"), ("hi\n".encode("utf-16"), "UTF-16")]
)
async def test_guesses_the_encoding_for_the_message(tmp_path: Path, data: bytes, guess: str) -> None:
    (tmp_path / "q.txt").write_bytes(data)
    with pytest.raises(DecodeFailure, match=f"iconv -f {guess} ") as raised:
        await values_of(source(tmp_path / "q.txt"))
    advised = re.search(r"or set encoding: (\S+)", str(raised.value))
    if advised is not None:
        FileSource.Config(path="q.txt", encoding=advised[1])  # what is advised is not refused then
    assert (advised is None) == (guess == "UTF-16")


@pytest.mark.parametrize(
    ("form", "text", "place", "problem"),
    [
        ("jsonl", '{"a": 1}\n\n{broken\n', 3, "not JSON at column 2"),
        ("csv", "a,b\n1,2\n1,2,3\n", 3, "3 fields, but the first row names 2: a, b"),
        ("csv", 'a,b\n1,2\n"open,2\n', 3, "not CSV"),
        ("csv", "a,a\n1,2\n", 1, "names a twice"),
        ("csv", "a,,\n1,2,3\n", 1, "names '' twice"),
    ],
)
async def test_a_row_that_is_not_of_the_format_is_named(
    tmp_path: Path, form: str, text: str, place: int, problem: str
) -> None:
    path = tmp_path / "q.txt"
    path.write_text(text)
    with pytest.raises(DecodeFailure) as raised:
        await values_of(source(path, format=form))
    assert str(raised.value).startswith(f"{path}:{place}: ")
    assert problem in str(raised.value)


async def test_blank_lines_before_the_names_of_a_csv_file_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("\n\na,b\n1,2\n3,4\n")
    items = await read_all(source(tmp_path / "q.csv", format="csv"))
    assert [value for value, _ in items] == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]
    assert await values_of(source(tmp_path / "q.csv", format="csv"), items[0][1]) == [{"a": "3", "b": "4"}]


async def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "q.jsonl")
    with pytest.raises(InvalidTopology, match="sage topics produce"):
        await source(tmp_path / "q.jsonl").open(open_context())
    (tmp_path / "r.jsonl").write_text("1\n")
    assert await values_of(source(tmp_path / "*.jsonl")) == ["1"]


async def test_the_null_device_is_an_empty_file() -> None:
    assert await values_of(source(Path(os.devnull))) == []


async def test_a_home_folder_that_nobody_has_is_named() -> None:
    with pytest.raises(NotFound, match=r"~nobody-of-this-name/q\.txt: no home folder"):
        await source(Path("~nobody-of-this-name/q.txt")).open(open_context())


async def test_a_file_without_lines_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LONGEST_LINE", 300_000)
    (tmp_path / "q.bin").write_bytes(b"ok\n" + b"x" * 1_000_000)
    with pytest.raises(RecordTooLarge, match=r"q\.bin:2"):
        await values_of(source(tmp_path / "q.bin"))


@pytest.mark.parametrize(
    "options",
    [
        {"format": "xml"},
        {"follow": True, "format": "document"},
        {"encoding": "utf-16"},
        {"encoding": "nope"},
        {"topq": 1},
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FileSource.Config(path="a", **options)


async def test_an_empty_file_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "q.txt").touch()
    for form in ("lines", "jsonl", "csv"):
        assert await values_of(source(tmp_path / "q.txt", format=form)) == []


async def test_streams_files_larger_than_a_block(tmp_path: Path) -> None:
    wanted = [f"{number} " + "é" * (number % 300) for number in range(20_000)]
    (tmp_path / "q.txt").write_text("\n".join(wanted), encoding="utf-8")
    assert (tmp_path / "q.txt").stat().st_size > 10 * blocks.BLOCK_BYTES
    items = await read_all(source(tmp_path / "q.txt"))
    assert [value for value, _ in items] == wanted
    assert await values_of(source(tmp_path / "q.txt"), items[12_345][1]) == wanted[12_346:]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r")), max_size=20), st.booleans())
async def test_lines_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], crlf: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "q.txt"
    end = "\r\n" if crlf else "\n"
    path.write_bytes("".join(text + end for text in texts).encode())
    mark = texts[0].removeprefix("\ufeff") if texts else ""
    wanted = [text for text in [mark, *texts[1:]] if text and not text.isspace()]
    assert await values_of(source(path)) == wanted
    if wanted:
        await assert_resumes_at_every_position(source(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    from sage.errors import Unauthorized

    path = tmp_path / "q.txt"
    path.write_text("a\n")
    path.chmod(0)
    with pytest.raises(Unauthorized, match=r"q\.txt"):
        await values_of(source(path))
