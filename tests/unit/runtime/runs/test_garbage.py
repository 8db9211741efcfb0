"""The collector while records are processed."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from sage.runtime.runs.garbage import YOUNG, rare_collections


class Node:
    """Something that can refer to itself."""

    other: Node


def _cycle() -> weakref.ref[Node]:
    node = Node()
    node.other = node
    return weakref.ref(node)


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_what_was_there_is_left_out_and_comes_back_at_the_end() -> None:
    gc.set_threshold(700, 10, 10)
    with rare_collections():
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold() == (YOUNG, 10, 10)
        with rare_collections():
            pass
        assert gc.get_threshold() == (YOUNG, 10, 10)  # the outer one is still on
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == (700, 10, 10)


def test_garbage_of_before_and_of_meanwhile_is_freed() -> None:
    gc.disable()
    try:
        before = _cycle()
        assert before() is not None
        with rare_collections():
            assert before() is None
            meanwhile = _cycle()
            gc.collect()
            assert meanwhile() is None
    finally:
        gc.enable()


def test_a_collector_that_is_switched_off_stays_off() -> None:
    gc.set_threshold(0)
    with rare_collections():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0
