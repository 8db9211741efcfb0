"""Functions that a program names, and workers can import."""

from __future__ import annotations


def twice(value: str) -> str:
    return value + value


def above_nothing(value: int) -> int:
    if value < 0:
        raise ValueError("less than nothing")
    return value
