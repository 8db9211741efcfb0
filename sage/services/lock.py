"""One program at a time changes a folder's services."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path

from sage.errors import FolderInUse
from sage.services.state import disk_error

_POLL = 0.05


@contextmanager
def folder_lock(path: Path, *, timeout: float, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock file ``path``; the operating system frees it when its holder dies.

    ``on_wait`` is called once when somebody else has it.

    Raises:
        FolderInUse: another program held it for ``timeout`` seconds.
        SageError: the file can't be made.
    """
    deadline = time.monotonic() + timeout
    waited = False
    try:
        file = path.open("a+b")
    except OSError as error:
        raise disk_error(error, path.parent) from error
    with file:
        while not try_lock(file):
            if not waited and on_wait is not None:
                on_wait()
            waited = True
            if time.monotonic() >= deadline:
                raise FolderInUse(
                    f"another program has been starting or stopping services for {timeout:.0f} s; "
                    "wait for it or stop it, then try again",
                    where=str(path.parent),
                )
            time.sleep(_POLL)
        # Closing the file frees the lock. It is never deleted: a second program could then lock a file nobody sees.
        yield


if sys.platform == "win32":
    import msvcrt

    def try_lock(file: BufferedRandom) -> bool:
        """Whether the file could be locked; closing it frees it."""
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def try_lock(file: BufferedRandom) -> bool:
        """Whether the file could be locked; closing it frees it."""
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
