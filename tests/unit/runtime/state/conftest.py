"""Tables over stores in memory, and clocks moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from sage.runtime.state.table import PartitionTable
from sage.state.in_memory import MemoryStore

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

MakeTable = Callable[..., PartitionTable]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def table(store: MemoryStore) -> MakeTable:
    """``table(ttl=..., model=...)``: a table with timers over ``store``."""

    def make(*, model: Any = None, ttl: float | None = None, has_timers: bool = True) -> PartitionTable:
        made = PartitionTable(store, model=model, ttl=ttl, has_timers=has_timers)
        made.load_timers()
        return made

    return make
