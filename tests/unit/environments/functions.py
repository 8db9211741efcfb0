"""Functions that a program names, and workers can import."""

from __future__ import annotations


def twice(value: str) -> str:
    return value + value


def above_nothing(value: int) -> int:
    if value < 0:
        raise ValueError("less than nothing")
    return value


tried: set[int] = set()
"""By ``fails_first``; a test clears it."""


def fails_first(value: int) -> int:
    if value not in tried:
        tried.add(value)
        raise ConnectionError("another try helps")
    return value
