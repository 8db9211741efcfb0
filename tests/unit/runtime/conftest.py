"""Ends the loops of all benches that a test set up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.unit.runtime.bench import OPEN

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")


@pytest.fixture(autouse=True)
def _closed_benches() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()
