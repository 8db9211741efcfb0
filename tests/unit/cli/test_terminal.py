"""Data on standard output in the format asked for; everything else on standard error."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from sage.cli.flags import Flags, UsageError
from sage.cli.terminal import Column, Terminal, has_colour

ROWS: list[dict[str, Any]] = [
    {"name": "员工手册", "count": 86, "dim": 384, "note": None},
    {"name": "handbook", "count": 5, "dim": 256, "note": "two\nlines"},
]
COLUMNS = (Column("name"), Column("count", right=True), Column("dim", wide=True), Column("note"))


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def make(output: str = "table", *, quiet: bool = False, tty: bool = False) -> Terminal:
    kind = Screen if tty else io.StringIO
    return Terminal(Flags(output=output, quiet=quiet), out=kind(), err=kind())


def text_of(stream: Any) -> str:
    return str(stream.getvalue())


def test_a_table_shows_its_columns_and_wide_ones_on_request() -> None:
    table, wide = make(), make("wide")
    table.rows(ROWS, COLUMNS)
    wide.rows(ROWS, COLUMNS)
    assert text_of(table.out).splitlines()[0].split() == ["NAME", "COUNT", "NOTE"]
    assert text_of(wide.out).splitlines()[0].split() == ["NAME", "COUNT", "DIM", "NOTE"]
    assert "two lines" in text_of(table.out)
    assert text_of(table.err) == ""


def test_json_and_yaml_hold_every_field() -> None:
    shown, other = make("json"), make("yaml")
    shown.rows(ROWS, COLUMNS)
    other.rows(ROWS, COLUMNS)
    assert json.loads(text_of(shown.out)) == ROWS
    assert YAML(typ="safe", pure=True).load(text_of(other.out)) == ROWS
    assert "员工手册" in text_of(shown.out)


TEXTS = st.one_of(st.text(max_size=60), st.text(alphabet="ab 01:#-?\n'\"\\._~=%@&*|>[]{},\x85\u2028", max_size=120))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(TEXTS, st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.lists(TEXTS, max_size=3))))
def test_yaml_says_what_json_says_whatever_the_texts_are(value: dict[str, Any]) -> None:
    shown, other = make("json"), make("yaml")
    shown.data(value)
    other.data(value)
    assert YAML(typ="safe", pure=True).load(text_of(other.out)) == json.loads(text_of(shown.out)) == value


@pytest.mark.parametrize(
    "text", ["yes", "Off", "n", "1_000", "0x1f", "12:30:45", "2026-01-31", "1e3", ".inf", "=", "~"]
)
def test_what_old_yaml_takes_for_something_else_stands_in_quotes(text: str) -> None:
    shown = make("yaml")
    shown.data({"value": text})
    assert text_of(shown.out) == f'value: "{text}"\n'


def test_a_stream_is_json_lines_or_yaml_documents() -> None:
    shown, other = make("json"), make("yaml")
    for row in ROWS:
        shown.record(row)
        other.record(row)
    assert [json.loads(line) for line in text_of(shown.out).splitlines()] == ROWS
    assert list(YAML(typ="safe", pure=True).load_all(text_of(other.out))) == ROWS


def test_nothing_is_an_empty_list_for_programs_and_a_remark_for_people() -> None:
    shown, people = make("json"), make()
    shown.rows([], COLUMNS, empty="no collections")
    people.rows([], COLUMNS, empty="no collections")
    assert json.loads(text_of(shown.out)) == []
    assert text_of(people.out) == ""
    assert "no collections" in text_of(people.err)


def test_quiet_leaves_out_remarks_and_keeps_errors() -> None:
    shown = make(quiet=True)
    shown.note("a remark")
    shown.error("an error")
    assert text_of(shown.err) == "an error\n"


def test_progress_is_for_terminals_only_and_is_wiped_before_a_line() -> None:
    pipe, screen = make(), make(tty=True)
    pipe.progress("waiting")
    screen.progress("waiting")
    screen.error("done")
    assert text_of(pipe.err) == ""
    assert text_of(screen.err).endswith("\r\x1b[2Kdone\n")


def test_a_bar_says_how_far_it_is() -> None:
    screen = make(tty=True)
    screen.bar("files", 3, 12)
    assert "[#####...............] 3/12" in text_of(screen.err)


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert has_colour(Screen())
    assert not has_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colour(Screen())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not has_colour(Screen())


def test_a_question_without_anybody_to_answer_wants_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = make()
    shown.confirm("Delete it?", yes=True)
    with pytest.raises(UsageError, match=r"Delete it\? Say so with --yes"):
        shown.confirm("Delete it?", yes=False)


@pytest.mark.parametrize(
    ("answer", "goes_on"), [("y\n", True), ("YES\n", True), ("\n", False), ("no\n", False), ("", False)]
)
def test_only_a_clear_yes_goes_on(monkeypatch: pytest.MonkeyPatch, answer: str, goes_on: bool) -> None:
    monkeypatch.setattr("sys.stdin", Screen(answer))
    shown = make(tty=True)
    if goes_on:
        shown.confirm("Delete it?", yes=False)
    else:
        with pytest.raises(UsageError, match="nothing was done"):
            shown.confirm("Delete it?", yes=False)
    assert "Delete it? [y/N] " in text_of(shown.err)


def test_details_stand_below_each_other() -> None:
    shown = make()
    shown.details({"name": "handbook", "fields": {"year": "int"}, "indexes": ["a", "b"], "description": ""})
    assert text_of(shown.out).splitlines() == [
        "name         handbook", "fields       year=int", "indexes      a, b", "description  -",
    ]  # fmt: skip
