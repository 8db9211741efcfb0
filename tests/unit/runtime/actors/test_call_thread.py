"""Calls that may never return."""

from __future__ import annotations

import threading

import pytest

from sage.runtime.actors.call_thread import CallThread, Hung


def test_results_and_errors_are_the_functions() -> None:
    thread = CallThread("t")
    assert thread.call(lambda: 3, 10) == 3
    with pytest.raises(KeyError, match="x"):
        thread.call(lambda: {}["x"], 10)
    thread.close()


def test_a_call_that_hangs_is_left_behind_and_the_next_one_is_made() -> None:
    release = threading.Event()
    thread = CallThread("t")
    with pytest.raises(Hung):
        thread.call(release.wait, 0.01)
    assert thread.call(lambda: "on", 10) == "on"
    release.set()
    thread.close()
