"""``sage`` in a process of its own, as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until


class Program:
    """A running command with its output in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def output(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self, timeout: float) -> int:
        """Its exit code."""
        return self.process.wait(timeout)

    def wait_for(self, text: str, timeout: float = 30.0) -> None:
        """Until it has written ``text``."""

        def there() -> bool:
            if self.process.poll() is not None and text not in self.output:
                raise AssertionError(f"ended with {self.process.returncode}: {self.output}")
            return text in self.output

        wait_until(there, timeout=timeout, what=f"the program writes {text!r}")

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def sage(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[Program]:
    """Run ``sage ARGUMENTS`` in ``folder``; killed when the block ends."""
    number = len(list(folder.glob("run-*.log")))
    log = folder / f"run-{number}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "sage", *arguments],
            cwd=folder,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        if process.poll() is None:
            program.kill()
