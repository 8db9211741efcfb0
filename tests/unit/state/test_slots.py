"""Several workers on one folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage.errors import FolderInUse
from sage.state import slots
from sage.state.rocks import RocksStores
from sage.state.slots import UNUSED_FOR, Slot


def test_two_workers_share_a_folder_and_not_their_copies(tmp_path: Path) -> None:
    first, second = RocksStores(tmp_path), RocksStores(tmp_path)
    first.open("shop", "count", 0).apply({b"k": b"1"}, 1)
    assert second.open("shop", "count", 0).get(b"k") is None


def test_one_that_comes_back_finds_its_copies(tmp_path: Path) -> None:
    first, second = RocksStores(tmp_path), RocksStores(tmp_path)
    store = first.open("shop", "count", 0)
    store.apply({b"k": b"1"}, 1)
    second.open("shop", "count", 0)
    store.close()
    first.close()
    assert RocksStores(tmp_path).open("shop", "count", 0).get(b"k") == b"1"


def test_a_killed_process_frees_its_slot(tmp_path: Path) -> None:
    code = "import os, sys; from pathlib import Path; from sage.state.slots import Slot\n"
    code += "slot = Slot(Path(sys.argv[1])); print(slot.path.name, flush=True); os._exit(9)"
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, capture_output=True, text=True)
    assert died.stdout.strip() == "slot-0"
    assert Slot(tmp_path).path.name == "slot-0"


def test_a_folder_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "MAX_SLOTS", 1)
    held = Slot(tmp_path)
    with pytest.raises(FolderInUse, match="a folder of its own"):
        Slot(tmp_path)
    held.close()
    assert Slot(tmp_path).path.name == "slot-0"


def test_copies_that_nobody_opened_for_long_are_removed(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    kept, old = slot.place("shop", "count", 0), slot.place("shop", "count", 1)
    os.utime(old / "used", (0, time.time() - UNUSED_FOR - 60))
    assert slot.remove_unused() == [old]
    assert kept.exists()
    assert not old.exists()
    assert slot.remove_unused(time.time() + UNUSED_FOR + 60) == [kept]


def test_opening_marks_a_copy_as_used(tmp_path: Path) -> None:
    slot = Slot(tmp_path)
    os.utime(slot.place("shop", "count", 0) / "used", (0, 0))
    place = slot.place("shop", "count", 0)
    assert slot.remove_unused() == []
    assert place.exists()
