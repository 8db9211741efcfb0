"""A file of lines to which each line is appended once, whatever crashes in between.

Beside ``answers.jsonl`` lies ``answers.jsonl.ids``: one JSON line a batch, ``{"at": 120, "length": 45, "ids": [...]}``.
A batch is written in numbered steps, under a lock on the ``.ids`` file:

1. Read what other processes announced since the last time.
2. Look at the last batch announced. Where the data file is shorter than it says, its writer died in the middle:
   cut off an unfinished line, and forget the ids of the lines that are not there; they were not committed, so
   their records come again.
3. Leave out the lines whose ids are known.
4. Announce the batch; fsync.
5. Append it to the data file; fsync.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson

from sage.errors import DiskFull, InvalidTopology, SageError

_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_APPEND = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
_log = logging.getLogger("sage.connectors.file")


class _Batch(NamedTuple):
    """What the ids file says of one batch; ``start`` is where it says so."""

    at: int
    length: int
    ids: list[str]
    start: int


class AppendLog:
    """The data file and its ids. Threads and processes may share the files; they take turns.

    Args:
        path: the data file.
        remember: ids kept at least; twice as many are kept at most.
    """

    def __init__(self, path: Path, *, remember: int) -> None:
        self._path = path
        self._ids_path = path.with_name(path.name + ".ids")
        self._remember = remember
        self._turn = threading.Lock()
        self._data = self._ids = -1
        self._forget()

    def open(self) -> None:
        """Make both files where they are missing.

        Raises:
            InvalidTopology: what is there is no file.
            OSError: they can't be made or written.
        """
        if self._path.exists() and not (self._path.is_file() or self._path.is_dir()):
            raise InvalidTopology(
                "is a pipe or device, from which nothing can be taken back; name a file, or use the sink terminal",
                where=str(self._path),
            )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._catch_up()

    def append(self, lines: Sequence[tuple[str, bytes]]) -> None:
        """Append the lines whose ids are not in the file; lines with an empty id always.

        Args:
            lines: id and text of each, the text with its line end.

        Raises:
            DiskFull: no space; both files are as they were.
        """
        with self._locked():
            self._catch_up()
            ids, texts = self._fresh(lines)
            if not texts:
                return
            self._write(ids, b"".join(texts))
            if len(self._seen) > 2 * self._remember:
                self._shorten()

    def close(self) -> None:
        """Release both files."""
        for handle in (self._data, self._ids):
            if handle >= 0:
                os.close(handle)
        self._data = self._ids = -1
        self._forget()

    def _forget(self) -> None:
        self._seen: set[str] = set()
        self._batches: deque[_Batch] = deque()
        self._read_to = 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock on the ids file that the path names now; another process may have shortened it."""
        with self._turn:
            while True:
                if self._ids < 0:
                    self._ids = os.open(self._ids_path, _APPEND, 0o644)
                fcntl.flock(self._ids, fcntl.LOCK_EX)
                if _is_at(self._ids, self._ids_path):
                    break
                os.close(self._ids)
                self._ids = -1
                self._forget()
            try:
                if self._data < 0 or not _is_at(self._data, self._path):
                    if self._data >= 0:
                        os.close(self._data)
                    self._data = os.open(self._path, _APPEND, 0o644)
                yield
            finally:
                fcntl.flock(self._ids, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        """Steps 1 and 2."""
        size = os.fstat(self._ids).st_size
        if size < self._read_to:
            self._forget()
        text = os.pread(self._ids, size - self._read_to, self._read_to)
        whole = text.rfind(b"\n") + 1
        if whole < len(text):  # died while announcing: nothing of that batch is in the data file
            os.ftruncate(self._ids, self._read_to + whole)
        for line in text[:whole].splitlines(keepends=True):
            self._remember_batch(self._parsed(line))
            self._read_to += len(line)
        self._mend()

    def _parsed(self, line: bytes) -> _Batch:
        try:
            said = orjson.loads(line)
            return _Batch(said["at"], said["length"], said["ids"], self._read_to)
        except (ValueError, KeyError, TypeError):
            raise SageError(
                f"damaged at byte {self._read_to}, so nobody knows which records are in {self._path.name};"
                " move both files away to start afresh",
                where=str(self._ids_path),
            ) from None

    def _mend(self) -> None:
        if not self._batches:
            return
        last = self._batches[-1]
        size = os.fstat(self._data).st_size
        if size < last.at:
            _log.warning("%s: shorter than it was, so it was replaced; starting it afresh", self._path)
            os.ftruncate(self._ids, 0)
            self._forget()
        elif size < last.at + last.length:
            there = os.pread(self._data, size - last.at, last.at)
            whole = there.rfind(b"\n") + 1
            _log.warning(
                "%s: the last writer died in the middle of a batch; going on after its last whole line", self._path
            )
            os.ftruncate(self._data, last.at + whole)
            os.ftruncate(self._ids, last.start)
            self._batches.pop()
            self._seen.difference_update(last.ids)
            self._read_to = last.start
            if whole:
                self._announce(last.at, whole, last.ids[: there.count(b"\n")])

    def _fresh(self, lines: Sequence[tuple[str, bytes]]) -> tuple[list[str], list[bytes]]:
        """Step 3."""
        ids: list[str] = []
        texts: list[bytes] = []
        here: set[str] = set()
        for record_id, text in lines:
            if record_id and (record_id in self._seen or record_id in here):
                continue
            here.add(record_id)
            ids.append(record_id)
            texts.append(text)
        return ids, texts

    def _write(self, ids: list[str], data: bytes) -> None:
        """Steps 4 and 5."""
        size, start = os.fstat(self._data).st_size, self._read_to
        try:
            self._end_last_line(size)
            self._announce(os.fstat(self._data).st_size, len(data), ids)
            _write_all(self._data, data)
        except OSError as error:
            os.ftruncate(self._data, size)
            os.ftruncate(self._ids, start)
            if self._batches and self._batches[-1].start == start:
                self._seen.difference_update(self._batches.pop().ids)
            self._read_to = start
            if error.errno in _NO_SPACE:
                raise DiskFull(
                    "no space left; nothing of this batch was written; free some and start again", where=str(self._path)
                ) from None
            raise

    def _end_last_line(self, size: int) -> None:
        """What another program wrote may lack its last line end; ours must not become a part of that line."""
        if size and os.pread(self._data, 1, size - 1) != b"\n":
            _write_all(self._data, b"\n")

    def _announce(self, at: int, length: int, ids: list[str]) -> None:
        line = orjson.dumps({"at": at, "length": length, "ids": ids}, option=orjson.OPT_APPEND_NEWLINE)
        _write_all(self._ids, line)
        self._remember_batch(_Batch(at, length, ids, self._read_to))
        self._read_to += len(line)

    def _remember_batch(self, batch: _Batch) -> None:
        self._batches.append(batch)
        self._seen.update(batch.ids)
        self._seen.discard("")

    def _shorten(self) -> None:
        """Keep the newest ids only. The new file takes the old one's name at once; waiting processes see that."""
        while len(self._batches) > 1 and len(self._seen) > self._remember:
            self._seen.difference_update(self._batches.popleft().ids)
        kept = list(self._batches)
        new_path = self._ids_path.with_name(self._ids_path.name + ".new")
        new = os.open(new_path, _APPEND | os.O_TRUNC, 0o644)
        try:
            _write_all(
                new,
                b"".join(
                    orjson.dumps(
                        {"at": each.at, "length": each.length, "ids": each.ids}, option=orjson.OPT_APPEND_NEWLINE
                    )
                    for each in kept
                ),
            )
        finally:
            os.close(new)
        new_path.replace(self._ids_path)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
    os.fsync(handle)
