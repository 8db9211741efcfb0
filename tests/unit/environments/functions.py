"""Functions that a program names, and workers can import."""

from __future__ import annotations


def twice(value: str) -> str:
    return value + value


def above_nothing(value: int) -> int:
    if value < 0:
        raise ValueError("less than nothing")
    return value


_tried: set[int] = set()


def fails_first(value: int) -> int:
    if value not in _tried:
        _tried.add(value)
        raise ConnectionError("another try helps")
    return value
