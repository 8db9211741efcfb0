"""The reports of several processes become one."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage.errors import SageError
from sage.operations.run_reports import added, read_report, write_report
from sage.runtime.runs.report import RunReport, StepReport

ONE = RunReport(
    "qa",
    {"lines": StepReport("lines", 10, 10), "work": StepReport("work", 4, 3, 2, 1, 1, 0.1, 0.2, "KeyError: 'x'")},
    2.0, complete=False, waiting_for='step "work"', dead_letters=1, delivered=3, read=10,
)  # fmt: skip
TWO = RunReport(
    "qa", {"lines": StepReport("lines", 0, 0), "work": StepReport("work", 6, 6, p50=0.3, p95=0.1)}, 3.0,
    dead_letters=2, delivered=6,
)  # fmt: skip


def test_a_report_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_report(tmp_path / "1.json", ONE)
    assert read_report(tmp_path / "1.json") == ONE
    assert list(tmp_path.iterdir()) == [tmp_path / "1.json"]


def test_a_process_that_died_left_none(tmp_path: Path) -> None:
    assert read_report(tmp_path / "1.json") is None


@pytest.mark.parametrize("text", ["", "[]", '{"steps": {}, "topology": "x"}', '{"steps": {"a": {"no": 1}}}'])
def test_another_files_content_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "1.json").write_text(text, encoding="utf-8")
    with pytest.raises(SageError, match="not a report of a run"):
        read_report(tmp_path / "1.json")


def test_records_are_added_and_times_are_the_slowest_processs() -> None:
    report = added([ONE, TWO])
    assert (report.read, report.delivered, report.dead_letters, report.seconds) == (10, 9, 2, 3.0)
    assert (report.complete, report.waiting_for) == (True, "")
    assert list(report.steps) == ["lines", "work"]
    assert report.steps["work"] == StepReport("work", 10, 9, 2, 1, 1, 0.3, 0.2, "KeyError: 'x'")


def test_a_run_that_nobody_found_complete_says_what_it_waited_for() -> None:
    report = added([ONE, ONE])
    assert (report.complete, report.waiting_for) == (False, 'step "work"')
