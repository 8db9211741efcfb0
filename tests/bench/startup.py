"""Milliseconds until the command line has said something."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path


def measure_help(times: int = 9) -> float:
    """The median of ``sage --help``, after one run to warm the disk's cache."""
    command = [str(Path(sys.executable).with_name("sage")), "--help"]
    taken: list[float] = []
    for _ in range(times + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken[1:])
