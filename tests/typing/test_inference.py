"""mypy and pyright infer the types of streams, and refuse what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MARKED = {n for n, line in enumerate((HERE / "mistakes.py").read_text().splitlines(), 1) if "# error:" in line}


def _mypy(file: str) -> list[tuple[int, str]]:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--no-pretty", str(HERE / file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode in {0, 1}, run.stdout + run.stderr
    found = re.finditer(rf"{re.escape(file)}:(\d+): error: (.*)", run.stdout)
    return [(int(match[1]), match[2]) for match in found]


def _pyright(file: str) -> list[tuple[int, str]]:
    pytest.importorskip("pyright")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(HERE / file)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    if run.returncode not in {0, 1} or not run.stdout.strip().startswith("{"):
        pytest.skip(f"pyright cannot run here (it needs Node): {run.stderr[-300:]}")
    told = json.loads(run.stdout)["generalDiagnostics"]
    return [(d["range"]["start"]["line"] + 1, d["message"]) for d in told if d["severity"] == "error"]


@pytest.mark.parametrize("checker", [_mypy, _pyright])
def test_types_of_streams_are_inferred(checker) -> None:
    assert checker("streams.py") == []


@pytest.mark.parametrize("checker", [_mypy, _pyright])
def test_mistakes_are_type_errors(checker) -> None:
    assert {line for line, _ in checker("mistakes.py")} == MARKED
