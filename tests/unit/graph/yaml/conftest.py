"""``pieces`` as a module that YAML can name; importlib mode gives test modules no importable name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def pieces() -> Iterator[ModuleType]:
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("pieces")
    finally:
        sys.path.remove(folder)
        sys.modules.pop("pieces", None)
