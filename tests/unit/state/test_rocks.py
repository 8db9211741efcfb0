"""What is particular to copies on disk: damage, full disks, locks."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sage.errors import DiskFull, FolderInUse, StageStopped
from sage.state.rocks import RocksStores


def database(folder: Path) -> Path:
    return folder / "slot-0" / "shop" / "count" / "0" / "db"


def filled(folder: Path, entries: int = 1) -> RocksStores:
    stores = RocksStores(folder)
    store = stores.open("shop", "count", 0)
    store.apply({b"k%d" % number: os.urandom(100) for number in range(entries)}, 5)
    store._db.flush()
    store.close()
    return stores


def test_nothing_is_made_before_the_first_store_is_opened(tmp_path: Path) -> None:
    RocksStores(tmp_path / "state").close()
    assert not (tmp_path / "state").exists()


def test_a_database_that_does_not_open_is_made_again_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stores = filled(tmp_path)
    (database(tmp_path) / "CURRENT").write_text("MANIFEST-999999\n")
    with caplog.at_level(logging.WARNING, "sage.state"):
        store = stores.open("shop", "count", 0)
    assert (store.applied, store.get(b"k0")) == (0, None)
    assert "made again from its changelog" in caplog.text


def test_damage_that_is_met_later_stops_the_stage_and_mends_itself_at_the_next_start(tmp_path: Path) -> None:
    stores = filled(tmp_path, entries=5_000)
    (table,) = database(tmp_path).glob("*.sst")
    with table.open("r+b") as file:
        file.seek(table.stat().st_size // 3)
        file.write(b"damage" * 3_000)
    store = stores.open("shop", "count", 0)
    with pytest.raises(StageStopped, match="start again, it is then restored from its changelog"):
        for number in range(5_000):
            store.get(b"k%d" % number)
    with pytest.raises(StageStopped, match="restored from its changelog"):
        list(store.scan())
    store.close()
    again = stores.open("shop", "count", 0)
    assert (again.applied, list(again.scan())) == (0, [])


def test_a_copy_that_is_open_already_is_left_alone(tmp_path: Path) -> None:
    stores = RocksStores(tmp_path)
    store = stores.open("shop", "count", 0)
    store.apply({b"k": b"1"}, 5)
    with pytest.raises(FolderInUse, match="open already"):
        stores.open("shop", "count", 0)
    assert store.get(b"k") == b"1"


class Refusing:
    """A database whose disk is full."""

    def write(self, batch: Any) -> None:
        raise Exception("IO error: No space left on device: While appending to file: /data/000004.log")


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RocksStores(tmp_path).open("shop", "count", 0)
    monkeypatch.setattr(store, "_db", Refusing())
    with pytest.raises(DiskFull, match="make some and start again, nothing is lost"):
        store.apply({b"k": b"1"}, 3)
    with pytest.raises(DiskFull):
        store.wipe()
    assert store.applied == 0


def test_a_full_disk_at_opening_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = filled(tmp_path)

    def refuse(path: str, options: object) -> None:
        raise Exception("IO error: No space left on device: While open a file for appending")

    with monkeypatch.context() as patched:
        patched.setattr("rocksdict.Rdict", refuse)
        with pytest.raises(DiskFull):
            stores.open("shop", "count", 0)
    assert stores.open("shop", "count", 0).get(b"k0") is not None


def test_a_folder_that_can_not_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StageStopped, match="give the working folder to this user, or use another"):
        RocksStores(tmp_path / "file" / "state").open("shop", "count", 0)


def test_a_closed_store_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    stores = filled(tmp_path)
    store = stores.open("shop", "count", 0)
    store.close()
    store.close()
    with pytest.raises(StageStopped, match="closed"):
        store.get(b"k0")
    assert stores.open("shop", "count", 0).get(b"k0") is not None


WRITES_AND_DIES = """
import os, sys
from pathlib import Path
from sage.state.rocks import RocksStores
store = RocksStores(Path(sys.argv[1])).open("shop", "count", 0)
for number in range(1, 51):
    store.apply({b"n": b"%d" % number, b"twice": b"%d" % (2 * number)}, number)
os._exit(9)
"""


def test_a_killed_process_leaves_all_batches_or_whole_ones(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WRITES_AND_DIES, str(tmp_path)], check=False, timeout=60)
    store = RocksStores(tmp_path).open("shop", "count", 0)
    n = int(store.get(b"n") or b"0")
    assert (store.applied, int(store.get(b"twice") or b"0")) == (n, 2 * n)
    assert n == 50  # a process's death loses nothing; only a machine's may
