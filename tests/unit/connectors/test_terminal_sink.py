import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from sage.model.record import Record
from sage_connectors import PrintSink, TerminalSink
from tests.unit.connectors.reading import assert_takes_a_batch_twice

ANSWERED = {
    "query": "How many days of leave do new staff get?",
    "documents": [
        {"id": "leave.md#2", "text": "New staff get 20 days.", "score": 0.8712, "metadata": {}},
        {"id": "travel.md#1", "text": "Ask first.", "score": 0.41, "metadata": {}},
    ],
    "answer": "20 days.",
}


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_on(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal in place of standard output; made in the test itself, since pytest sets its own before each phase."""
    made = Screen()
    monkeypatch.setattr(sys, "stdout", made)
    return made


def terminal(form: str = "auto") -> TerminalSink:
    return TerminalSink(TerminalSink.Config(format=form))


async def test_shows_questions_answers_and_passages_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_on(monkeypatch)
    await terminal().write([Record(ANSWERED, id="1")])
    assert screen.getvalue() == (
        "  Q  How many days of leave do new staff get?\n  A  20 days.   [leave.md#2  0.87]  [travel.md#1  0.41]\n"
    )


async def test_shows_only_the_cited_passages_with_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_on(monkeypatch)
    cited = ANSWERED | {"citations": [{"document_id": "leave.md#2", "quote": "get 20 days"}]}
    await terminal().write([Record(cited, id="1")])
    assert screen.getvalue().splitlines()[1:] == ["  A  20 days.   [leave.md#2  0.87]", '       "get 20 days"']


async def test_an_answer_of_several_lines_is_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_on(monkeypatch)
    await terminal().write([Record({"query": "q", "answer": "one\n\ntwo"}, id="1")])
    assert screen.getvalue() == "  Q  q\n  A  one\n\n     two\n"


async def test_says_that_an_answer_is_extractive(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_on(monkeypatch)
    await terminal().write([Record(ANSWERED | {"model": "extractive"}, id="1")])
    assert screen.getvalue().rstrip().endswith("[travel.md#1  0.41]  (extractive: the passage's own words)")


async def test_gives_json_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    await terminal().write([Record(ANSWERED, id="1"), Record("text", id="2"), Record(None, id="3")])
    assert [orjson.loads(line) for line in capsys.readouterr().out.splitlines()] == [ANSWERED, "text", None]


async def test_plain_values_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_on(monkeypatch)

    class Answer(BaseModel):
        text: str

    await terminal("text").write(
        [
            Record("hello\nworld", id="1"),
            Record({"n": 1}, id="2"),
            Record(Answer(text="x"), id="3"),
            Record(b"\xff", id="4"),
        ]
    )
    assert screen.getvalue() == 'hello\nworld\n{"n":1}\n{"text":"x"}\n"\\\\xff"\n'


async def test_an_answer_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = shown_on(monkeypatch)
    await terminal().write([Record(ANSWERED | {"answer": "a\x1b]0;owned\x07\x9b2Jb", "documents": []}, id="1")])
    assert "\x1b" not in screen.getvalue()
    assert "\x9b" not in screen.getvalue()
    await terminal("jsonl").write([Record("\x1b\x9b", id="2")])
    assert screen.getvalue().endswith('"\\u001b\\u009b"\n')
    assert "a\ufffd]0;owned\ufffd\ufffd2Jb" in screen.getvalue()


async def test_prints_each_record_once(capsys: pytest.CaptureFixture[str]) -> None:
    await assert_takes_a_batch_twice(terminal(), [Record(n, id=str(n)) for n in range(4)])
    assert capsys.readouterr().out.split() == ["0", "1", "2", "3"]


async def test_records_without_an_id_are_all_printed_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    await terminal().write([Record(1), Record(2, id="a"), Record(1), Record(2, id="a")])
    assert capsys.readouterr().out.split() == ["1", "2", "1"]


async def test_a_terminal_without_unicode_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    await terminal("text").write([Record("二十天", id="1")])
    assert raw.getvalue() == b"\\u4e8c\\u5341\\u5929\n"


async def test_print_puts_a_prefix_before_each_value(capsys: pytest.CaptureFixture[str]) -> None:
    await PrintSink(PrintSink.Config(prefix="> ")).write([Record("a", id="1"), Record([1], id="2")])
    assert capsys.readouterr().out == "> a\n> [1]\n"


WRITES_FOR_EVER = textwrap.dedent("""
    import asyncio, sys
    from sage.errors import StageStopped
    from sage.model.record import Record
    from sage_connectors import TerminalSink
    async def main() -> None:
        sink = TerminalSink()
        while True:
            await sink.write([Record("x" * 1000)])
    try:
        asyncio.run(main())
    except StageStopped as error:
        print(error, file=sys.stderr)
""")


def writing_for_ever(stdout: int) -> subprocess.Popen[bytes]:
    environ: dict[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join([".", "connectors"])}
    return subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER], env=environ, stdout=stdout, stderr=subprocess.PIPE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_under_standard_output_stops_the_sink_and_says_so() -> None:
    with Path("/dev/full").open("wb") as full, writing_for_ever(full.fileno()) as process:
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert said.decode().count("\n") == 1
    assert "standard output can't be written: No space left on device; the last records are not committed" in str(said)


def test_a_terminal_that_has_gone_stops_the_sink_and_says_so() -> None:
    """Nothing about the records: buried, they would be lost with the window that was closed."""
    ours, theirs = os.openpty()
    with writing_for_ever(theirs) as process:
        os.close(theirs)
        os.read(ours, 100)
        os.close(ours)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "standard output can't be written: Input/output error; the last records are not" in said.decode()


def test_a_closed_pipe_is_one_clear_error_and_a_quiet_exit() -> None:
    process = writing_for_ever(subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(20) == 0
    assert said.count("\n") == 1
    assert "closed by its reader" in said
