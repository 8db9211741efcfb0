"""Jaeger for tests that read a trace back as a user would."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator

import pytest

from tests.integration.tracing.jaeger import Jaeger, jaeger_binary


@pytest.fixture(scope="session")
def jaeger() -> Iterator[Jaeger]:
    """A running Jaeger. Skipped where it can't be built for want of Go; any other failure fails the test."""
    try:
        binary = jaeger_binary()
    except RuntimeError as error:
        if shutil.which("go") is not None and "needs Go" not in str(error):
            raise
        reason = f"NO TEST AGAINST A REAL JAEGER: {error}"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    running = Jaeger(binary)
    yield running
    running.stop()
