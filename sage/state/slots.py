"""Whose folder is whose: several worker processes share a working folder, each in a slot of its own.

The operating system frees a slot when its process dies, however it dies. A worker that comes back takes the first
free slot, and so finds the copies that it, or another one, left there.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import IO

from sage.errors import FolderInUse

MAX_SLOTS = 1_000
"""More processes than anybody starts on one folder."""

UNUSED_FOR = 7 * 24 * 3600.0
"""Seconds after which a copy that nobody has opened is removed, and its disk space with it."""

_MARK = "used"


class Slot:
    """One locked folder below ``folder``; the first that nobody holds.

    Raises:
        FolderInUse: all are held.
        OSError: the folder can't be made or written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(MAX_SLOTS):
            self.path = folder / f"slot-{number}"
            self.path.mkdir(exist_ok=True)
            # Never deleted: somebody could then lock a file that nobody else sees.
            self._file = (self.path / "lock").open("a+b")
            if _try_lock(self._file):
                return
            self._file.close()
        raise FolderInUse(
            f"{MAX_SLOTS} processes keep their state here; give this one a folder of its own", where=str(folder)
        )

    def close(self) -> None:
        """Leave it to another process."""
        self._file.close()

    def place(self, topology: str, step: str, partition: int) -> Path:
        """The folder of one copy, made, and marked as used now."""
        place = self.path / topology / step / str(partition)
        place.mkdir(parents=True, exist_ok=True)
        (place / _MARK).touch()
        return place

    def remove_unused(self, now: float | None = None) -> list[Path]:
        """Remove copies of partitions that moved away for good; which ones.

        Args:
            now: seconds since the epoch; the clock's by default.
        """
        before = (time.time() if now is None else now) - UNUSED_FOR
        old = [mark.parent for mark in self.path.glob(f"*/*/*/{_MARK}") if mark.stat().st_mtime < before]
        for place in old:
            shutil.rmtree(place, ignore_errors=True)
        return old


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> bool:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
