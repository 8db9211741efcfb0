"""What a program that catches nothing prints: its own lines and one clear sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage.environments.tracebacks import short_traceback
from sage.errors import NotFound

PROGRAM = """\
from sage import LocalEnvironment

env = LocalEnvironment("qa")
env.run_once()
"""


def stderr_of(tmp_path: Path, **variables: str) -> str:
    program = tmp_path / "qa.py"
    program.write_text(PROGRAM)
    environ = {name: value for name, value in os.environ.items() if name != "SAGE_DEBUG"} | variables
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    return done.stderr


@short_traceback
def missing() -> None:
    """Fail as a step does that looks for a file."""
    try:
        raise FileNotFoundError("handbook")
    except FileNotFoundError as error:
        raise NotFound("no file handbook") from error


def test_the_programs_line_and_the_sentence_remain(tmp_path: Path) -> None:
    text = stderr_of(tmp_path)
    assert text.splitlines()[-1].endswith("]")
    assert "env.run_once()" in text
    assert text.count('  File "') <= 2, text


def test_causes_are_kept_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_DEBUG", "1")
    with pytest.raises(NotFound) as caught:
        missing()
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("value", [None, "", "0"])
def test_else_they_are_not(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("SAGE_DEBUG", raising=False)
    if value is not None:
        monkeypatch.setenv("SAGE_DEBUG", value)
    with pytest.raises(NotFound) as caught:
        missing()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_other_errors_are_left_as_they_are() -> None:
    @short_traceback
    def fails() -> None:
        raise KeyError("x") from ValueError("y")

    with pytest.raises(KeyError) as caught:
        fails()
    assert isinstance(caught.value.__cause__, ValueError)
