"""Columns that stay columns, Chinese included."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.cli.text import columns, cut, day_and_time, milliseconds, one_line, width


def test_chinese_takes_two_columns_and_colour_none() -> None:
    assert width("员工") == 4
    assert width("\x1b[32mok\x1b[0m") == 2
    assert width("é") == 1


def test_columns_line_up_behind_chinese() -> None:
    lines = columns([["NAME", "N"], ["员工手册", "1"], ["a", "22"]], right=[False, True])
    assert lines == ["NAME       N", "员工手册   1", "a         22"]


def test_a_line_that_is_too_long_loses_the_end_of_its_widest_cell() -> None:
    (line,) = columns([["id", "x" * 200, "end"]], limit=40)
    assert width(line) <= 40
    assert line.startswith("id")
    assert line.endswith("…  end")


@given(st.text(), st.integers(min_value=1, max_value=80))
def test_cut_text_never_takes_more_than_it_may(text: str, limit: int) -> None:
    assert width(cut(text, limit)) <= max(limit, 1)


@given(st.text())
def test_one_line_has_no_line_end(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0184, "18 ms"), (0.9, "900 ms"), (3.14, "3.1 s"), (125, "2 m 05 s"), (60, "1 m 00 s")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text


def test_a_moment_is_told_in_this_machines_time_and_nothing_is_a_dash() -> None:
    moment = datetime(2026, 11, 25, 16, 42, 51).astimezone()
    assert day_and_time(int(moment.timestamp() * 1000)) == "2026-11-25 16:42:51"
    assert day_and_time(0) == "-"
