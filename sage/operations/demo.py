"""What ``sage demo`` does: it runs the commands of the first five minutes, each as its own process."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sage.errors import SageError

PROJECT = "handbook"
TEMPLATE = "rag-qa"
TOPOLOGY = "rag-qa.yaml"


@dataclass(frozen=True, slots=True)
class Step:
    """One line that a user would type."""

    arguments: tuple[str, ...]
    after: str = ""

    @property
    def label(self) -> str:
        """The verb: ``ingest`` of ``memory ingest``."""
        return self.arguments[1] if self.arguments[0] in {"memory", "topology"} else self.arguments[0]

    @property
    def typed(self) -> str:
        """The line as typed: ``sage init handbook --template rag-qa && cd handbook``."""
        return f"sage {shlex.join(self.arguments)}{self.after}"


INIT = Step(("init", PROJECT, "--template", TEMPLATE), after=f" && cd {PROJECT}")
UP = Step(("up",))
INGEST = Step(("memory", "ingest", PROJECT, "docs/"))
RUN = Step(("topology", "run", TOPOLOGY, "--until-idle"))
DOWN = Step(("down",))


class StepFailed(SageError):  # noqa: N818 - named like the other errors
    """A command of the demo ended with an error; what it said stands above."""


@dataclass
class Typist:
    """Shows a command, runs it, and keeps how long each took.

    Args:
        folder: where the commands run.
        show: is given each command line before it runs.
        output: where their standard output goes; ``None`` is this program's own.
        environ: their environment; by default this program's, without what leads to other brokers.
    """

    folder: Path
    show: Callable[[str], None]
    output: IO[str] | int | None = None
    environ: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def type(self, step: Step, *, render: Callable[[str], str] | None = None) -> None:
        """Run one command; ``render`` turns each line of its output into what people read.

        Raises:
            StepFailed: it ended with another code than 0; the error has its exit code.
        """
        self.show(step.typed)
        began = time.monotonic()
        code = run(step.arguments, self.folder, output=self.output, environ=self.environ, render=render)
        self.seconds[step.label] = time.monotonic() - began
        self._check(step, code)

    def count(self, step: Step) -> int:
        """Run one command and count the lines that it prints. Raises as ``type``."""
        self.show(step.typed)
        with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
            self._check(step, run(step.arguments, self.folder, output=printed, environ=self.environ))
            printed.seek(0)
            return sum(1 for _ in printed)

    def _check(self, step: Step, code: int) -> None:
        if code:
            raise StepFailed(f"`{step.typed}` ended with exit code {code}", where=str(self.folder), exit_code=code)


def own_broker(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the address of other brokers: the demo writes to its own alone."""
    kept = {name: value for name, value in environ.items() if name != "SAGE_BOOTSTRAP_SERVERS"}
    return {**kept, "SAGE_CONFIG": os.devnull}


def run(
    arguments: Sequence[str],
    folder: Path,
    *,
    output: IO[str] | int | None = None,
    environ: Mapping[str, str] | None = None,
    render: Callable[[str], str] | None = None,
) -> int:
    """Run ``sage ARGUMENTS`` in ``folder``; returns its exit code. Ctrl-C reaches it too, and it is waited for.

    With ``render`` each line of its output goes through it, to this program's own standard output.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "sage", *arguments],
        cwd=folder,
        stdout=output if render is None else subprocess.PIPE,
        env=own_broker(os.environ) if environ is None else dict(environ),
        text=True,
        encoding="utf-8",
    )
    try:
        if render is not None and process.stdout is not None:
            for line in process.stdout:
                print(render(line.rstrip("\n")), flush=True)
        return process.wait()
    except KeyboardInterrupt:
        # The terminal sent it the same signal: it drains and ends by itself.
        process.wait(timeout=60)
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
