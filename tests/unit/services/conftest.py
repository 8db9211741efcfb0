"""Services of tests end with the test, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.services.service_set import ServiceSet


@pytest.fixture
def services(tmp_path: Path) -> Iterator[ServiceSet]:
    made = ServiceSet(tmp_path / ".sage")
    yield made
    made.down(timeout=2.0)
