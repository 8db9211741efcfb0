"""Durations as users write them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")


def seconds(value: float | str) -> float:
    """A duration in seconds, from a number of seconds or a text such as ``"500ms"``, ``"2m"``, ``"7d"``.

    Raises:
        ValueError: the text is not a number with one of the units ms, s, m, h, d; or it is negative.
    """
    if isinstance(value, str):
        match = _TEXT.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not a duration; write seconds, or a number with ms, s, m, h or d")
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{value!r} is not a duration; write seconds, or a text such as '500ms'")
    return float(value)


Duration = Annotated[float, BeforeValidator(seconds)]
"""A pydantic field that takes seconds or a text such as ``"500ms"`` and holds seconds."""
