"""What counts as a change of a project."""

from __future__ import annotations

import os
from pathlib import Path

from sage.operations.watching import snapshot


def names(folder: Path, *more: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in snapshot(folder, more).marks}


def test_what_a_topology_is_made_of_is_looked_at_and_its_data_is_not(tmp_path: Path) -> None:
    for name in (
        "rag.yaml", "steps.py", "sub/more.py", ".env", "in.txt", "out.jsonl", ".sage/up.json", ".git/x.py",
        "__pycache__/steps.py", "venv/lib.py", ".venv/lib.py", "node_modules/a.py",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert names(tmp_path) == {"rag.yaml", "steps.py", "sub/more.py", ".env"}
    assert names(tmp_path, tmp_path / "in.txt", tmp_path / "not-there.yaml") == {
        "rag.yaml", "steps.py", "sub/more.py", ".env", "in.txt",
    }  # fmt: skip


def test_new_gone_and_other_files_are_changes(tmp_path: Path) -> None:
    for name in ("same.py", "gone.py", "longer.py", "touched.py"):
        (tmp_path / name).write_text("1")
    before = snapshot(tmp_path)
    assert snapshot(tmp_path) == before
    assert snapshot(tmp_path).changed_since(before) == []

    (tmp_path / "gone.py").unlink()
    (tmp_path / "new.py").write_text("1")
    (tmp_path / "longer.py").write_text("12")
    os.utime(tmp_path / "touched.py", ns=(0, 1))
    changed = snapshot(tmp_path).changed_since(before)
    assert [path.name for path in changed] == ["gone.py", "longer.py", "new.py", "touched.py"]
