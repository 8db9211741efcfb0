"""Tells Ctrl-C from a failure.

A signal that arrives while a library's own code calls back into Python does not always come out of it as a
KeyboardInterrupt: the library may put an error of its own in its place. So it is remembered as well.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from sage.cli.flags import UsageError
from sage.errors import SageError

_asked: list[bool] = []
"""Filled where somebody has asked the program to end. Not an Event: one that a second signal interrupts while the first
one's handler sets it has its lock held by the very thread that waits for it."""


def remember() -> None:
    """Somebody has asked the program to end."""
    _asked.append(True)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A signal handler: what Ctrl-C does."""
    del number, frame
    remember()
    raise KeyboardInterrupt


def ending_signals() -> tuple[int, ...]:
    """What asks a program to finish and end: SIGTERM, and SIGHUP, when the terminal goes away, unless it is ignored, as
    under ``nohup``."""
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return (signal.SIGTERM,) if is_ignored else (signal.SIGTERM, signal.SIGHUP)


def hear_once(number: int) -> None:
    """For a handler: ignore another SIGHUP, as the shell and the kernel each send one when a terminal goes away. A
    second SIGTERM is a person's, who wants the end at once."""
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def remembered() -> Iterator[None]:
    """Remember Ctrl-C within the block, where it would be a KeyboardInterrupt anyway."""
    _asked.clear()
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def is_interruption(error: BaseException) -> bool:
    """Whether it ends the program because somebody asked for that; SAGE's own errors say what they are."""
    if isinstance(error, KeyboardInterrupt):
        return True
    return bool(_asked) and not isinstance(error, (SageError, UsageError, SystemExit, BrokenPipeError))
