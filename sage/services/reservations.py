"""Ports of services that are about to listen: two folders that start at once must not both count on one.

The later one would find the port answered, by the other folder's service, and take that for its own. What other
programs do is still found out by the service itself: it ends when it can't listen.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from sage.services.lock import try_lock
from sage.services.ports import is_free


class Reservations:
    """Ports that this process has until it leaves the block; the operating system frees them when it dies.

    They hold among the programs of one user, by a locked file a port in the folder for temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or _folder_of_this_user()
        self._held = ExitStack()

    def take(self, port: int) -> bool:
        """Whether the port is free and nobody else is about to listen there; it is ours then."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            file = (self._folder / f"{port}.lock").open("a+b")
        except OSError:  # a folder of somebody else, a full disk: as good as without reservations
            return is_free(port)
        if not try_lock(file) or not is_free(port):
            file.close()
            return False
        self._held.callback(file.close)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()


def _folder_of_this_user() -> Path:
    number: Callable[[], int] = getattr(os, "getuid", lambda: 0)
    return Path(tempfile.gettempdir()) / f"sage-ports-{number()}"
