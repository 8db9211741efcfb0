"""Starter projects: copied whole, never over something."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage.errors import NotFound, SageError
from sage.operations import starter


def test_the_project_is_copied_whole(tmp_path: Path) -> None:
    made = starter.create(tmp_path / "handbook", "rag-qa")
    assert made.files
    for file in made.files:
        assert (made.folder / file).is_file()
    assert not [file for file in made.files if "__pycache__" in file.parts]
    assert (made.folder / ".gitignore").read_text().startswith(".sage/")
    pages = sum(1 for file in made.files if file.parts[0] == "docs")
    assert f"docs/ ({pages} pages)" in made.summary()
    assert pages >= 12


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "questions.txt").write_text("mine")
    with pytest.raises(SageError, match=r"already holds questions\.txt; nothing was written"):
        starter.create(folder, "rag-qa")
    assert [path.name for path in folder.iterdir()] == ["questions.txt"]
    assert (folder / "questions.txt").read_text() == "mine"


def test_a_folder_with_other_files_is_fine(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("mine")
    (tmp_path / ".gitignore").write_text("mine")
    starter.create(tmp_path, "rag-qa")
    assert (tmp_path / "notes.md").read_text() == "mine"
    assert (tmp_path / ".gitignore").read_text() == "mine"


def test_an_unknown_template_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no template is named 'rag-q'; did you mean rag-qa\?") as caught:
        starter.create(tmp_path / "x", "rag-q")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "x").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SageError, match="cannot be written: Not a directory"):
        starter.create(tmp_path / "file" / "below", "rag-qa")
