"""State stores on disk: one RocksDB per topology, step and partition, in this process's slot of a folder.

What is here is a copy: the changelog is the truth. So nothing is synced to disk, and a database that can't be read
is made again.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.errors import DiskFull, FolderInUse, SageError, StageStopped
from sage.state.slots import Slot

if TYPE_CHECKING:
    from rocksdict import Options

logger = logging.getLogger("sage.state")

MEMORY = 4 * 1024 * 1024
"""Bytes of writes that one database holds in memory, and as much again while they go to disk: a worker may have
hundreds of partitions."""

CHUNK = 1_000
"""Entries that a scan reads at once. No iterator lives longer than that: an open one would keep a closed database
locked."""

_ENTRY, _AFTER_ENTRIES = b"e", b"f"
_APPLIED = b"a"
_DATABASE, _DAMAGED = "db", "damaged"


class RocksStore:
    """The StateStore port over one RocksDB; made by ``RocksStores.open``."""

    def __init__(self, place: Path) -> None:
        from rocksdict import Rdict, WriteBatch

        self._place = place
        self._new_batch = WriteBatch
        try:
            self._db: Any = Rdict(str(place / _DATABASE), options=_options())
            self._applied = int.from_bytes(self._db.get(_APPLIED) or b"\0", "big")
        except Exception as error:  # rocksdict raises plain Exceptions
            raise _opened_badly(place, error) from error
        self._get = self._db.get
        self._closed = False

    @property
    def applied(self) -> int:
        """The changelog offset up to which (exclusive) this copy is complete."""
        return self._applied

    def get(self, key: bytes) -> bytes | None:
        """A key's value. Raises StageStopped where the copy can't be read."""
        try:
            found: bytes | None = self._get(_ENTRY + key)
        except Exception as error:  # rocksdict raises plain Exceptions
            raise self._unreadable(error) from error
        return found

    def scan(self, prefix: bytes = b"", start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries by prefix, in the order of their keys. Raises StageStopped where the copy can't be read."""
        begin, following = _ENTRY + prefix, _ENTRY + max(prefix, start or b"")
        while True:
            chunk = self._chunk(begin, following)
            for key, value in chunk:
                yield key[1:], value
            if len(chunk) < CHUNK:
                return
            following = chunk[-1][0] + b"\0"

    def _chunk(self, begin: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        try:
            entries = self._db.iter()
            entries.seek(start)
            while entries.valid() and len(found) < CHUNK:
                key = entries.key()
                if not key.startswith(begin):
                    break
                found.append((key, entries.value()))
                entries.next()
            entries.status()
        except Exception as error:  # rocksdict raises plain Exceptions
            raise self._unreadable(error) from error
        return found

    def apply(self, writes: Mapping[bytes, bytes | None], applied: int) -> None:
        """Write all, with the offset, in one batch. Raises DiskFull."""
        batch = self._new_batch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in writes.items():
            if value is None:
                delete(_ENTRY + key)
            else:
                put(_ENTRY + key, value)
        put(_APPLIED, applied.to_bytes(8, "big"))
        self._write(batch)
        self._applied = applied

    def wipe(self) -> None:
        """Forget everything. Raises DiskFull."""
        batch = self._new_batch(raw_mode=True)
        batch.delete_range(_ENTRY, _AFTER_ENTRIES)
        batch.delete(_APPLIED)
        self._write(batch)
        self._applied = 0

    def _write(self, batch: Any) -> None:
        try:
            self._db.write(batch)
        except Exception as error:  # rocksdict raises plain Exceptions
            if _tells_full_disk(error):
                raise _disk_full(self._place, error) from error
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> StageStopped:
        """Not this record's fault: have the copy made again at the next start."""
        if self._closed:
            return StageStopped("this copy of the state is closed", where=str(self._place))
        try:
            (self._place / _DAMAGED).touch()
        except OSError as failure:
            logger.warning("%s: can't be marked as damaged, remove it by hand: %s", self._place, failure)
        return StageStopped(
            f"its copy of the state can't be read or written: {error}; start again, it is then restored from its "
            "changelog",
            where=str(self._place),
        )

    def close(self) -> None:
        """Release the database; twice is the same as once."""
        if not self._closed:
            self._closed = True
            self._db.close()


class RocksStores:
    """The StateStores port in one slot of ``folder``. Nothing is made before the first store is opened.

    May be called from any thread; a store itself is written by one thread at a time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._slot: Slot | None = None
        self._lock = threading.Lock()

    def open(self, topology: str, step: str, partition: int) -> RocksStore:
        """The copy of that place; one that can't be read is made again.

        Raises:
            DiskFull: no room for it.
            FolderInUse: it is open already.
            StageStopped: it can't be made, for example for want of permissions.
        """
        try:
            return self._open(self._own_slot().place(topology, step, partition))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _disk_full(self._folder, error) from error
            raise StageStopped(
                f"no state can be kept here: {error}; give the working folder to this user, or use another",
                where=str(self._folder),
            ) from error

    def _open(self, place: Path) -> RocksStore:
        try:
            if (place / _DAMAGED).exists():
                raise _Unreadable("it was found damaged")
            return RocksStore(place)
        except _Unreadable as error:
            logger.warning("%s: this copy of the state is made again from its changelog: %s", place, error)
            shutil.rmtree(place / _DATABASE, ignore_errors=True)
            (place / _DAMAGED).unlink(missing_ok=True)
        try:
            return RocksStore(place)
        except _Unreadable as error:
            raise StageStopped(
                f"no database can be made: {error}; look at the folder's permissions and its disk", where=str(place)
            ) from error

    def _own_slot(self) -> Slot:
        with self._lock:
            if self._slot is None:
                self._slot = Slot(self._folder)
                for place in self._slot.remove_unused():
                    logger.info("%s: removed, unused for long", place)
            return self._slot

    def close(self) -> None:
        """Give the slot back; close the stores before."""
        with self._lock:
            if self._slot is not None:
                self._slot.close()
                self._slot = None


class _Unreadable(Exception):  # noqa: N818 - an answer to ``open``, never shown
    """A database that RocksDB does not open."""


def _options() -> Options:
    from rocksdict import BlockBasedOptions, DBCompressionType, Options

    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(MEMORY)
    options.set_max_write_buffer_number(2)
    options.set_max_open_files(64)
    options.set_keep_log_file_num(1)
    options.set_max_total_wal_size(4 * MEMORY)
    options.set_compression_type(DBCompressionType.lz4())
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(10, False)  # most reads that miss the cache are of new keys
    options.set_block_based_table_factory(blocks)
    return options


def _opened_badly(place: Path, error: Exception) -> Exception:
    text = str(error)
    # "lock hold by current process", or "While lock file: ...: Resource temporarily unavailable"
    if "lock hold" in text or "While lock file" in text:
        return FolderInUse(f"this copy of the state is open already: {text}", where=str(place))
    return _disk_full(place, error) if _tells_full_disk(error) else _Unreadable(text)


def _disk_full(place: Path, error: Exception) -> SageError:
    return DiskFull(
        f"no room for keyed state: {error}; make some and start again, nothing is lost: the changelog has it",
        where=str(place),
    )


def _tells_full_disk(error: Exception) -> bool:
    return any(words in str(error) for words in ("No space left", "Disk quota exceeded"))
