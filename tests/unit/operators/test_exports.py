"""``sage.operators`` gives every built-in operator, and imports none before it is asked for."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sage.operators
from sage.spec.component import Operator


@pytest.mark.parametrize("name", sage.operators.__all__)
def test_every_name_is_an_operator_of_that_name(name: str) -> None:
    found = getattr(sage.operators, name)
    assert issubclass(found, Operator)
    assert found.__name__ == name


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(sage.operators.__file__).read_text())
    typed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed - {"import_module", "annotations", "TYPE_CHECKING", "Any"} == set(sage.operators.__all__)


def test_importing_the_package_imports_no_operator() -> None:
    program = "import sys, sage.operators; print(sorted(m for m in sys.modules if m.startswith('sage.operators.')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [
        "BM25Retriever", "HybridRetriever", "Reranker", "Refiner", "TransformersGenerator", "Agent", "Router",
        "SessionMemory", "LongTermMemory",
    ],
)  # fmt: skip
def test_operators_of_a_later_version_say_so(name: str) -> None:
    with pytest.raises(ImportError, match=rf"^sage\.operators\.{name} is not in this version; .* \[SAGE110\]$"):
        exec(f"from sage.operators import {name}")


def test_other_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = sage.operators.nothing_here
