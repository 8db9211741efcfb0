"""Which files of a project have changed since the last look."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".py", ".yaml", ".yml", ".env"})
"""What a topology is made of. Data that it reads or writes is left alone: it changes because the topology runs."""

_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "venv", "build", "dist", "site-packages"})
_MOST: Final = 5_000
"""Files looked at; a folder with more is no project, and looking at all of them would cost more than it helps."""

Marks = Mapping[Path, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Time of change (nanoseconds) and size (bytes) of each file."""

    marks: Marks

    def changed_since(self, before: Snapshot) -> list[Path]:
        """Files that are new, gone or other than before, by name."""
        names = self.marks.keys() | before.marks.keys()
        return sorted(name for name in names if self.marks.get(name) != before.marks.get(name))


def snapshot(folder: Path, more: Iterable[Path] = ()) -> Snapshot:
    """The files of ``folder`` and below that a topology can be made of, and ``more``, wherever they are."""
    marks: dict[Path, tuple[int, int]] = {}
    for path in (*more, *_files(folder)):
        try:
            found = path.stat()
        except OSError:
            continue  # gone between the listing and now, or never there: the next look sees it
        marks[path] = (found.st_mtime_ns, found.st_size)
        if len(marks) >= _MOST:
            break
    return Snapshot(marks)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        for name in sorted(names):
            if Path(name).suffix in SUFFIXES or name == ".env":
                yield Path(root, name)
