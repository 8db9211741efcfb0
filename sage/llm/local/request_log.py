"""The model server's log: one line when a call starts, one when it ends.

The engine prints a dozen lines a call, in its own words. They are turned into two, so that anybody can count
what was really asked of the model::

    2026-11-23T03:10:12.345 call 7 started
    2026-11-23T03:10:12.990 call 7 ended tokens_read=31 tokens_out=9 ms=645

``tokens_read`` leaves out what was in the prompt cache. A canceled call
says ``ended early``. Warnings, errors and last words of the engine pass through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_ENGINE = re.compile(r"^[\d.]+ (?P<level>[A-Z]) (?P<text>.*)$")
_TASK = re.compile(r"\| task (?P<task>\d+) \| (?P<what>.*)$")
_STARTED = re.compile(r"\bcall (\d+) started$")


@dataclass
class _Call:
    number: int
    figures: str = ""


class RequestLog:
    """Turns the engine's lines into the server's. ``write`` gets whole lines without line ends."""

    def __init__(self, write: Callable[[str], None], *, now: Callable[[], datetime] = datetime.now) -> None:
        self._write = write
        self._now = now
        self._calls: dict[int, _Call] = {}
        self._count = 0

    def feed(self, line: str) -> None:
        """Take one line of the engine."""
        engine = _ENGINE.match(line)
        if engine is None:
            if line.strip():  # the last words of a crash have no level
                self.say(line)
            return
        if engine["level"] in "WE":
            self.say(f"engine {engine['level']}: {engine['text'].strip()}")
            return
        task = _TASK.search(engine["text"])
        if task is not None:
            self._task(int(task["task"]), task["what"])

    def _task(self, task: int, what: str) -> None:
        if what.startswith("processing task"):
            self._count += 1
            self._calls[task] = _Call(self._count)
            self.say(f"call {self._count} started")
        elif task not in self._calls:
            return
        elif figures := _timing(what):
            self._calls[task].figures += figures
        elif what.startswith("stop processing"):
            call = self._calls.pop(task)
            self.say(f"call {call.number} ended{call.figures or ' early'}")

    def say(self, text: str) -> None:
        """Write one line with the time in front."""
        self._write(f"{self._now().isoformat(timespec='milliseconds')} {text}")


def _timing(what: str) -> str:
    figures = re.match(r"\s*(prompt eval|eval|total) time =\s*([\d.]+) ms /\s*(\d+) tokens", what)
    if figures is None:
        return ""
    if figures[1] == "prompt eval":
        return f" tokens_read={figures[3]}"
    if figures[1] == "eval":
        return f" tokens_out={figures[3]}"
    return f" ms={float(figures[2]):.0f}"


def count_calls(lines: Iterable[str]) -> int:
    """How many calls a server's log says were started."""
    return sum(1 for line in lines if _STARTED.search(line.rstrip()))


def calls_in(log: Path) -> int:
    """How many calls the log file says were started; 0 where there is no file."""
    if not log.exists():
        return 0
    with log.open(encoding="utf-8", errors="replace") as file:
        return count_calls(file)
