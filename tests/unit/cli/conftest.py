"""The command line called in this process, and the folder that it works in."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sage.cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What one command line gave."""

    code: int
    out: str
    err: str


Sage = Callable[..., Outcome]


@pytest.fixture
def sage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sage:
    """``sage("topics", "list")`` in an empty folder, without any variable that leads to brokers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGE_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)

    def call(*words: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main(words)
        found = capsys.readouterr()
        return Outcome(code, found.out, found.err)

    return call
