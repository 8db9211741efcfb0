"""The command line called in this process, and the folder that it works in."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
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


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Commands set up the log of their process, which here is the tests'."""
    logger = logging.getLogger("sage")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:], logger.level = handlers, level


@pytest.fixture
def sage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sage:
    """``sage("topics", "list")`` in an empty folder, without any variable that leads to brokers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGE_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.setenv("SAGE_CONFIG", str(tmp_path / "sage-config.yaml"))
    monkeypatch.delenv("NO_COLOR", raising=False)

    def call(*words: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = main(words)
        found = capsys.readouterr()
        return Outcome(code, found.out, found.err)

    return call
