"""What users install: wheel and sdist, outside the tree, with nothing but the locked core packages."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
UV: list[str | Path] = [sys.executable, "-m", "uv"]


def run(*command: str | Path, cwd: Path) -> str:
    environ = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist; the wheel is made from the sdist, as an index would."""
    folder = tmp_path_factory.mktemp("dist")
    run(*UV, "build", "-q", "--no-build-isolation", "--python", sys.executable, "-o", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, built: tuple[Path, Path]) -> Iterator[Path]:
    """A virtual environment with the wheel and the locked core packages."""
    folder = tmp_path_factory.mktemp("clean")
    run(*UV, "venv", "-q", "--python", sys.executable, folder / "venv", cwd=folder)
    install: list[str | Path] = [
        *UV,
        "pip",
        "install",
        "-q",
        "--python",
        folder / "venv" / "bin" / "python",
        "--no-deps",
    ]
    run(*install, "--require-hashes", "-r", ROOT / "requirements" / "core.txt", cwd=folder)
    run(*install, built[0], cwd=folder)
    yield folder


def test_the_wheel_holds_the_three_packages_typed_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops - {"sage", "sage_connectors", "sage_topologies"} == {next(top for top in tops if "dist-info" in top)}
    assert {"sage/py.typed", "sage_connectors/py.typed", "sage_topologies/py.typed"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


def test_the_wheel_holds_every_file_of_the_packages(built: tuple[Path, Path]) -> None:
    """Data files too: templates, prompts, the corpus of the demo."""
    with zipfile.ZipFile(built[0]) as wheel:
        names = set(wheel.namelist())
    tracked = (
        run("git", "ls-files", "sage", "connectors", "topologies", cwd=ROOT).split("\n")
        if (ROOT / ".git").exists()
        else []
    )
    wanted = {name.removeprefix("connectors/").removeprefix("topologies/") for name in tracked if name}
    assert not wanted - names


def test_the_sdist_can_be_worked_with(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "requirements/core.txt"} <= names
    assert not [name for name in names if name.startswith((".venv/", ".sage/", ".cache/"))]


def test_installed_outside_the_tree_it_imports_and_runs(clean: Path) -> None:
    python = clean / "venv" / "bin" / "python"
    for module in (
        "sage",
        "sage_connectors",
        "sage_topologies",
        "sage.operators",
        "sage.memory",
        "sage.testing",
        "sage.tracing",
    ):
        where = run(python, "-c", f"import {module}; print({module}.__file__)", cwd=clean).strip()
        assert where.startswith(str(clean)), where
    sage = clean / "venv" / "bin" / "sage"
    version = (ROOT / "sage" / "version.py").read_text().split('"')[-2]
    assert version in run(sage, "version", cwd=clean)
    assert "topology" in run(sage, "--help", cwd=clean)


def test_every_registered_component_can_be_loaded_with_the_core_packages(clean: Path) -> None:
    code = (
        "from importlib.metadata import entry_points\n"
        "for group in ('sage.operators', 'sage.sources', 'sage.sinks'):\n"
        "    for entry in entry_points(group=group):\n"
        "        entry.load()\n"
        "        print(entry.name)\n"
    )
    names = run(clean / "venv" / "bin" / "python", "-c", code, cwd=clean).split()
    assert {"file", "terminal"} <= set(names)


def test_names_of_lazily_imported_packages_all_lead_somewhere(clean: Path) -> None:
    code = (
        "import importlib\n"
        "for package in ('sage', 'sage.operators', 'sage.memory', 'sage_connectors'):\n"
        "    module = importlib.import_module(package)\n"
        "    for name in getattr(module, '__all__', ()):\n"
        "        getattr(module, name)\n"
    )
    run(clean / "venv" / "bin" / "python", "-c", code, cwd=clean)
