from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sage.errors import MemoryFailure, NotFound
from sage.memory import embedded


def test_without_the_engine_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "milvus_lite.adapter.grpc.server", None)
    with pytest.raises(NotFound, match=r'pip install "sage-streams\[local\]"'):
        embedded.open_engine(tmp_path / "memory")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(MemoryFailure, match=r"cannot keep memory here: .*name another data_dir"):
        embedded.open_engine(tmp_path / "file" / "memory")


def test_a_folder_that_nobody_holds_has_no_holder(tmp_path: Path) -> None:
    assert embedded.holder_of(tmp_path) is None
    (tmp_path / "LOCK").touch()
    assert embedded.holder_of(tmp_path) is None


def test_leaving_a_folder_never_entered_is_fine(tmp_path: Path) -> None:
    embedded.close_engine(tmp_path)
