"""The pytest plugin: the fixture ``sage_driver``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sage.testing.driver import TopologyDriver


@pytest.fixture
def sage_driver() -> Iterator[Callable[..., TopologyDriver]]:
    """Makes ``TopologyDriver``s that are closed when the test ends."""
    from sage.testing.driver import TopologyDriver

    with ExitStack() as drivers:

        def make(target: Any, overrides: Any = None, **options: Any) -> TopologyDriver:
            return drivers.enter_context(TopologyDriver(target, overrides, **options))

        yield make
