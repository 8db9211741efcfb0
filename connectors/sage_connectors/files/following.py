"""Files that grow, are truncated, are rotated, and are joined by new ones.

A file is known by its inode, so a rotated one (``app.log`` becomes ``app.log.1``) is read to its end under its new
name, or through the handle that is still open where the new name is not in the glob. Looking is by polling: it
works on every file system, network ones too.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sage.model.json import Json
from sage.model.record import Record
from sage_connectors.files.blocks import Reading
from sage_connectors.files.locate import is_glob, locate
from sage_connectors.files.place import Place, other_places
from sage_connectors.files.rows import Row, in_threads


@dataclass(frozen=True, slots=True)
class Following:
    """What is followed and how.

    Attributes:
        path: a file or a glob.
        rows: the format's reader.
        encoding, delimiter: of the text.
        interval: seconds between two looks.
        logger: told of truncated, rotated and lost files.
    """

    path: str
    rows: Callable[[Reading, str], Iterator[Row]]
    encoding: str
    delimiter: str
    interval: float
    logger: logging.Logger


class _Tracked:
    """One file and how far it was read."""

    def __init__(self, place: Place) -> None:
        self.name = place.file
        self.inode = place.inode
        self.byte = place.byte
        self.line = place.line
        self.handle: BinaryIO | None = None
        self.size_seen = -1
        """The size at the last reading: an unfinished line is not read again before the file has grown."""

    def restart(self) -> None:
        """Take it for a new file."""
        self.byte = self.line = 0
        self.size_seen = -1

    def values(self) -> dict[str, Json]:
        return {"byte": self.byte, "line": self.line, "inode": self.inode}

    def close(self) -> None:
        if self.handle is not None:
            self.handle.close()
            self.handle = None


async def follow(
    following: Following, position: Json | None, *, bounded: bool
) -> AsyncIterator[list[tuple[Any, Json]]]:
    """Rows after ``position`` of all files, with the position after each; ``bounded``: one look at each file.

    Raises:
        NotFound: the path is no glob, and nothing is there.
        DecodeFailure: a line is not text in the encoding, or not of the format.
    """
    watch = _Watch(following, position)
    try:
        while True:
            for tracked in await asyncio.to_thread(watch.look):
                async for items in watch.read(tracked, bounded=bounded):
                    yield items
            if bounded:
                return
            await asyncio.sleep(following.interval)
    finally:
        watch.close()


class _Watch:
    """The files that are followed now."""

    def __init__(self, following: Following, position: Json | None) -> None:
        self._following = following
        self._several = is_glob(following.path)
        places = [Place.of(position), *other_places(position)] if position is not None else []
        self._tracked = {place.file: _Tracked(place) for place in places}

    def close(self) -> None:
        for tracked in self._tracked.values():
            tracked.close()

    def look(self) -> list[_Tracked]:
        """See which files there are and what happened to them; those that have something to read, in order."""
        found = locate(self._following.path, may_be_empty=True)
        now = {name: inode for name in found.files if (inode := _inode(name)) is not None}
        leaving = self._match_renamed(now)
        for name, inode in now.items():
            tracked = self._tracked.setdefault(name, _Tracked(Place(name, inode=inode)))
            tracked.inode = tracked.inode or inode
            if tracked.handle is None:
                tracked.handle = Path(name).open("rb")  # noqa: SIM115 - stays open between looks
        return [each for each in (*leaving, *map(self._tracked.__getitem__, sorted(now))) if self._has_grown(each)]

    def _match_renamed(self, now: dict[str, int]) -> list[_Tracked]:
        """Let files keep their places under a new name; the ones that left are given back to be finished."""
        names = {inode: name for name, inode in now.items()}
        leaving = []
        for name, tracked in list(self._tracked.items()):
            if not tracked.inode or now.get(name) == tracked.inode:
                continue
            del self._tracked[name]
            new_name = names.get(tracked.inode)
            if new_name is not None:
                tracked.name = new_name
                self._tracked[new_name] = tracked
            elif tracked.handle is not None:
                self._following.logger.info("%s: rotated or removed; finishing what it held", name)
                leaving.append(tracked)
            else:
                self._following.logger.warning(
                    "%s: replaced while nobody followed it; what it held after line %d can't be read",
                    name,
                    tracked.line,
                )
        return leaving

    def _has_grown(self, tracked: _Tracked) -> bool:
        assert tracked.handle is not None
        size = os.fstat(tracked.handle.fileno()).st_size
        if size < tracked.byte:
            self._following.logger.warning(
                "%s: truncated from %d to %d bytes; reading it from its start", tracked.name, tracked.byte, size
            )
            tracked.restart()
        grown = size > tracked.byte and size != tracked.size_seen
        tracked.size_seen = size
        return grown

    async def read(self, tracked: _Tracked, *, bounded: bool) -> AsyncIterator[list[tuple[Any, Json]]]:
        """What one file holds now; an unfinished last line only when bounded, or when the file is gone for good."""
        assert tracked.handle is not None
        leaving = self._tracked.get(tracked.name) is not tracked
        reading = Reading(
            tracked.handle,
            tracked.name,
            tracked.byte,
            tracked.line,
            limit=tracked.size_seen,
            encoding=self._following.encoding,
            partial=bounded or leaving,
        )
        others: dict[str, Json] = {each.name: each.values() for each in self._tracked.values() if each is not tracked}
        async for rows in in_threads(self._following.rows(reading, self._following.delimiter)):
            tracked.byte, tracked.line = rows[-1].byte, rows[-1].line
            yield [self._item(tracked, row, others) for row in rows]
        if leaving:
            tracked.close()

    def _item(self, tracked: _Tracked, row: Row, others: dict[str, Json]) -> tuple[Any, Json]:
        position: dict[str, Json] = {"file": tracked.name, "byte": row.byte, "line": row.line, "inode": tracked.inode}
        if not self._several:
            return row.value, position
        # After a crash the files may be read in another order, so the position can't be the record's identity.
        return Record(row.value, id=f"{tracked.inode}:{row.byte}"), {**position, "others": others}


def _inode(name: str) -> int | None:
    try:
        return os.stat(name).st_ino  # noqa: PTH116 - names as the glob gave them
    except FileNotFoundError:
        return None  # it went between the glob and the look; the next look sees what became of it
