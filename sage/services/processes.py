"""Processes that outlive the program which started them: is it still the same one, and how is it ended?

A process id alone is not an identity: after a crash or a reboot another program may have it. So an id is kept
together with the process's start time, and nothing is ever killed unless both agree.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

_POLL = 0.02


def identity(pid: int) -> str | None:
    """A text that only this process ever has (boot and start time), or ``None`` where it is gone or a zombie."""
    if pid <= 0:
        return None
    if Path("/proc/self/stat").exists():
        return _identity_from_proc(pid)
    return _identity_from_ps(pid)


def is_same(pid: int, known: str) -> bool:
    """Whether the process that had ``pid`` and ``known`` still lives."""
    return identity(pid) == known


def ask_to_end(pid: int, known: str) -> None:
    """Send SIGTERM to the process and its group, once: a second one makes many servers drop their work."""
    if is_same(pid, known):
        _signal_group(pid, signal.SIGTERM)
        # A stopped process would not see the first before it is woken up.
        _signal_group(pid, signal.SIGCONT)


def kill(pid: int, known: str) -> None:
    """End the process and its group at once, and wait until it is gone."""
    if is_same(pid, known):
        _signal_group(pid, signal.SIGKILL)
        wait_until_gone(pid, known, timeout=5.0)


def wait_until_gone(pid: int, known: str, *, timeout: float) -> bool:
    """Wait until the process has ended; false when it has not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while is_same(pid, known):
        if time.monotonic() >= deadline:
            return False
        reap(pid)
        time.sleep(_POLL)
    return True


def reap(pid: int) -> None:
    """Take the exit status of our own child, so that no zombie stays behind a long-lived program."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)


def _signal_group(pid: int, number: signal.Signals) -> None:
    # Services are started as leaders of their own session, so the group is the service and its helpers.
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _identity_from_proc(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The second field is the program's name in brackets, and may itself hold brackets and blanks.
    fields = text.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    if state in {"Z", "X"}:
        return None
    return f"{_boot_id()}:{started}"


def _boot_id() -> str:
    # Start times count from the boot, so one without the boot's id would repeat after the next.
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "boot"


def _identity_from_ps(pid: int) -> str | None:
    answer = subprocess.run(["ps", "-o", "state=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    if not started or state.startswith("Z"):
        return None
    return started.strip()
