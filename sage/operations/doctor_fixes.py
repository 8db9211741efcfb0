"""What ``sage doctor --fix`` does: it types the commands that its findings advise."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Sequence

from sage.operations.doctor import Finding


def commands(findings: Iterable[Finding]) -> list[tuple[str, ...]]:
    """The commands that would mend what is not well, each once, in the order of the findings."""
    found = (finding.fix for finding in findings if finding.state in {"warn", "fail"} and finding.fix)
    return list(dict.fromkeys(found))


def run(command: Sequence[str]) -> int:
    """Run one, its output on standard error; its exit code. ``sage`` is this installation's."""
    program = [sys.executable, "-m", "sage", *command[1:]] if command[0] == "sage" else list(command)
    return subprocess.run(program, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), check=False).returncode
