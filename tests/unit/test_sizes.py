"""Files and functions stay small enough to be read at a sitting, as CONTRIBUTING.md says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES_OF_A_FILE = 500
LINES_OF_A_FUNCTION = 50


def files(*folders: str) -> Iterator[tuple[Path, str]]:
    """Every module below these folders, with its text."""
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT), file.read_text("utf-8")


@pytest.mark.parametrize("folder", ["sage", "connectors", "topologies", "tests", "infra"])
def test_no_file_is_longer_than_500_lines(folder: str) -> None:
    lengths = {str(path): len(text.splitlines()) for path, text in files(folder)}
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > LINES_OF_A_FILE} == {}


@pytest.mark.parametrize("folder", ["sage", "connectors", "topologies", "infra"])
def test_no_function_is_longer_than_50_lines(folder: str) -> None:
    lengths = {
        f"{path}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, text in files(folder)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert lengths or folder == "topologies"
    assert {place: lines for place, lines in lengths.items() if lines > LINES_OF_A_FUNCTION} == {}
