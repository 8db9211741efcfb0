"""Data on standard output in the format asked for; everything else on standard error."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
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
