"""Several worker processes of one topology, started and watched by one that does no work itself.

Each is a process of its own (spawned, never forked: threads and Kafka clients don't survive a fork), in a session of
its own, so that Ctrl-C reaches the parent alone and is passed on once. Each reads its standard input to the end: it
ends with the parent, and then the child drains as after SIGTERM, whatever became of the parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sage.operations.run_reports import REPORT_VARIABLE

LIFELINE_VARIABLE = "SAGE_LIFELINE"
"""Set for a child: the end of its standard input is the end of its parent."""

INSTANCE_VARIABLE = "SAGE_INSTANCE_ID"

EXIT_FAILED, EXIT_TIMEOUT, EXIT_INTERRUPTED = 1, 5, 130

LAST_WAIT = 40.0
"""Seconds that a child has to drain when its parent leaves in a hurry; a drain takes 25 at most."""

_LOOK = 0.05
"""Seconds between two looks at the children."""

FIRST_DELAY, LONGEST_DELAY, GOOD_LIFE = 1.0, 30.0, 60.0
"""Seconds before a dead child's successor, doubling up to the second; a child that lived the third starts anew."""


@dataclass(slots=True)
class _Child:
    """One place among the processes, and who fills it."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    delay: float = FIRST_DELAY
    due: float | None = None
    code: int | None = None


class WorkerProcesses:
    """``count`` processes that run the same command.

    Args:
        arguments: after ``python``.
        count: how many.
        environ: their variables; each gets its own in addition.
        bounded: they end by themselves: when one has found the run complete the others are told to end. Otherwise
            a child that a signal killed is started again, with growing delays.
        instance: the name under which they are static members, each with its number; empty is none.
        reports: the folder for their reports; ``None`` asks for none.
        note: told what happens to them.
    """

    def __init__(
        self, arguments: Sequence[str], count: int, *, environ: Mapping[str, str], bounded: bool, instance: str = "",
        reports: Path | None = None, note: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._arguments = list(arguments)
        self._environ = environ
        self._bounded = bounded
        self._instance = instance
        self._reports = reports
        self._note = note
        self._children = [_Child(number) for number in range(1, count + 1)]
        self._asked: deque[int] = deque()
        self._is_ending = False
        self.asked: int | None = None
        """The first signal that was passed on."""

    def ask(self, number: int) -> None:
        """Pass a signal on to all of them; safe in a signal handler."""
        self._asked.append(number)  # no Event: a handler that sets one may wait for the lock of who it interrupts

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [child.process.pid for child in self._children if child.process is not None and child.code is None]

    def report_of(self, number: int) -> Path:
        """Where the ``number``-th process (from 1) leaves its report."""
        assert self._reports is not None
        return self._reports / f"{number}.json"

    def run(self) -> int:
        """Start them, and return the worst exit code when all have ended; one that a signal killed counts as 1."""
        try:
            for child in self._children:
                self._start(child)
            while any(child.code is None for child in self._children):
                while self._asked:
                    self._pass_on(self._asked.popleft())
                for child in self._children:
                    self._look_at(child)
                time.sleep(_LOOK)
        finally:
            self._end_all()
        if self.asked == signal.SIGINT:
            return EXIT_INTERRUPTED
        return max(_exit_code(child.code or 0) for child in self._children)

    # ------------------------------------------------------------------------------------ one child

    def _start(self, child: _Child) -> None:
        own = {LIFELINE_VARIABLE: "1"}
        if self._instance:
            own[INSTANCE_VARIABLE] = f"{self._instance}-{child.number}"
        if self._reports is not None:
            own[REPORT_VARIABLE] = str(self.report_of(child.number))
        child.process = subprocess.Popen(
            [sys.executable, *self._arguments],
            env={**self._environ, **own},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        child.started, child.due = time.monotonic(), None

    def _look_at(self, child: _Child) -> None:
        if child.code is not None:
            return
        if child.due is not None:
            if self._is_ending:
                child.code = 0
            elif time.monotonic() >= child.due:
                self._start(child)
            return
        assert child.process is not None
        code = child.process.poll()
        if code is None:
            return
        self._hang_up(child)
        if code < 0 and not self._bounded and not self._is_ending:
            self._start_again(child, code)
            return
        child.code = 0 if code == -signal.SIGTERM and self._is_ending else code  # asked before it could listen
        if code < 0 and not self._is_ending:
            self._note(f"process {child.number} was killed by {_signal_name(code)}; the others take over")
        elif code == 0 and self._bounded:
            self._end()  # it has seen that everything is committed, whoever did it
        elif code not in {0, EXIT_TIMEOUT}:
            self._end()  # what stopped this one would stop the others

    def _start_again(self, child: _Child, code: int) -> None:
        now = time.monotonic()
        if now - child.started >= GOOD_LIFE:
            child.delay = FIRST_DELAY
        child.due = now + child.delay
        self._note(
            f"process {child.number} was killed by {_signal_name(code)}; it is started again in {child.delay:.0f} s"
        )
        child.delay = min(2 * child.delay, LONGEST_DELAY)

    def _hang_up(self, child: _Child) -> None:
        assert child.process is not None
        if child.process.stdin is not None:
            child.process.stdin.close()

    # --------------------------------------------------------------------------------- all of them

    def _end(self) -> None:
        """Have the others drain and end."""
        if not self._is_ending:
            self._is_ending = True
            self._send(signal.SIGTERM)

    def _pass_on(self, number: int) -> None:
        self.asked = self.asked or number
        self._is_ending = True
        self._send(number)

    def _send(self, number: int) -> None:
        for child in self._children:
            if child.process is not None and child.code is None and child.process.poll() is None:
                child.process.send_signal(number)

    def _end_all(self) -> None:
        """Leave nobody behind: without their standard input they drain."""
        for child in self._children:
            if child.process is not None:
                self._hang_up(child)
                if child.code is None:
                    self._wait_for(child.process)

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(LAST_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()  # frozen: it holds partitions that others wait for
            process.wait()


def end_with_parent() -> None:
    """In a child: drain, as after SIGTERM, when the parent is gone. Does nothing in other processes."""
    if LIFELINE_VARIABLE in os.environ:
        threading.Thread(target=_wait_for_the_end, name="sage-lifeline", daemon=True).start()


def _wait_for_the_end() -> None:
    # Not sys.stdin: a thread inside its buffer when the interpreter ends makes it end with an error.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _exit_code(code: int) -> int:
    return EXIT_FAILED if code < 0 else code


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
