"""Durations as users write them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

LONGEST = 36_500 * 86_400.0
"""Seconds of a hundred years: more overflows the clocks, waits and times of systems below, and was mistyped."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def seconds(value: float | str) -> float:
    """A duration in seconds, from a number of seconds or a text such as ``"500ms"``, ``"2m"``, ``"7d"``.

    Raises:
        ValueError: the text is not a number with one of the units ms, s, m, h, d; or it is negative, no number, or
            more than 100 years.
    """
    if isinstance(value, str):
        match = _TEXT.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a duration; write seconds, or a number with ms, s, m, h or d")
        return _bounded(float(match[1]) * _UNITS[match[2]], value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{value!r} is not a duration; write seconds, or a text such as '500ms'")
    return _bounded(value, value)


def _bounded(found: float, written: float | str) -> float:
    if found > LONGEST:
        raise ValueError(f"{written!r} is too long a duration; 36500d is the longest")
    return float(found)


Duration = Annotated[float, BeforeValidator(seconds)]
"""A pydantic field that takes seconds or a text such as ``"500ms"`` and holds seconds."""
