"""``sage`` as a user types it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sage.services.service_set import ServiceSet


@dataclass(frozen=True)
class Typed:
    """What a command line gave."""

    code: int
    out: str
    err: str


@dataclass
class Shell:
    """A folder to type commands in."""

    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SAGE_", "OPENAI_"))}
        return {**inherited, "SAGE_CONFIG": os.devnull, **self.variables}

    def __call__(self, *words: str, stdin: str = "", timeout: float = 120) -> Typed:
        done = subprocess.run(
            [sys.executable, "-m", "sage", *words],
            cwd=self.folder,
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Typed(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on; end it with a signal."""
        return subprocess.Popen(
            [sys.executable, "-m", "sage", *words],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


@pytest.fixture
def sage(tmp_path: Path) -> Iterator[Shell]:
    yield Shell(tmp_path)
    ServiceSet(tmp_path / ".sage").down(timeout=5)


@pytest.fixture(scope="module")
def with_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder whose broker runs for all tests of a module."""
    shell = Shell(tmp_path_factory.mktemp("folder"))
    started = shell("up", "--only", "broker")
    assert started.code == 0, started.err
    yield shell
    ServiceSet(shell.folder / ".sage").down(timeout=5)
