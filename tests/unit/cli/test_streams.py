"""Standard streams that are closed, full, or of another encoding than UTF-8."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage.cli.main import main
from tests.unit.cli.conftest import Sage


def run_in_shell(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """``sage ...`` as a shell runs it, redirections included."""
    line = line.replace("sage", f"{sys.executable} -m sage", 1)
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env={**os.environ, **variables}, capture_output=True, timeout=60, check=False
    )


def test_a_closed_standard_output_is_no_failure(tmp_path: Path) -> None:
    done = run_in_shell("sage connectors list >&-", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


def test_with_a_closed_standard_error_no_error_becomes_data(tmp_path: Path) -> None:
    done = run_in_shell("sage nothing 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")


def test_with_a_closed_standard_input_a_question_is_refused_and_not_a_crash(
    sage: Sage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sage("config", "set-context", "old", "-b", "k:9092").code == 0
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["config", "delete-context", "old"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("Say so with --yes")


def test_a_command_works_without_any_stream(tmp_path: Path) -> None:
    done = run_in_shell("sage connectors list <&- >&- 2>&-; echo $?", tmp_path)
    assert done.stdout == b"0\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_standard_output_is_named(tmp_path: Path) -> None:
    done = run_in_shell("sage version >/dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.decode() == "standard output: can't be written: No space left on device [SAGE100]\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_what_nobody_can_be_told_changes_no_exit_code(tmp_path: Path) -> None:
    assert run_in_shell("sage nothing 2>/dev/full", tmp_path).returncode == 2


def test_remarks_that_nobody_reads_end_no_command(sage: Sage, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        """A pipe into ``head`` that has ended."""

        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    assert sage("config", "current-context").code == 4


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_a_terminal_cannot_encode_is_escaped(tmp_path: Path, encoding: str) -> None:
    variables = {"SAGE_CONFIG": str(tmp_path / "c.yaml"), "PYTHONUTF8": "0"}
    run_in_shell("sage config set-context 生产é😀 -b k:9092", tmp_path, **variables)
    shown = run_in_shell("sage config current-context", tmp_path, **variables, PYTHONIOENCODING=encoding)
    assert shown.returncode == 0
    assert shown.stdout.startswith(rb"\u751f\u4ea7")
    data = run_in_shell("sage config current-context -o json", tmp_path, **variables, PYTHONIOENCODING=encoding)
    assert json.loads(data.stdout.decode(encoding)) == {"name": "生产é😀"}


@pytest.mark.parametrize("words", [("topics", "describe", "\udcff\udcfe"), ("\udcff",), ("topics", "list", "-b\udcff")])
def test_an_argument_that_is_not_utf8_is_named(sage: Sage, words: tuple[str, ...]) -> None:
    found = sage(*words)
    assert found.code == 2
    assert "is not UTF-8" in found.err
    assert len(found.err.splitlines()) == 1
