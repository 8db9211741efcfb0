"""Copies of values that are given away while their giver may still change them."""

from __future__ import annotations

import copy
from typing import Any, Final

_FIXED: Final = frozenset({str, bytes, int, float, bool, type(None)})


def detached(value: Any) -> Any:
    """A copy of ``value`` that no later change to it reaches; what can't be changed, or copied, as it is.

    Several outputs of one record may share parts, or be the same object, changed from one to the next. On a topic
    each is what it was when it was given.
    """
    kind = type(value)
    if kind in _FIXED:
        return value
    if kind is dict:
        return {name: part if type(part) in _FIXED else detached(part) for name, part in value.items()}
    if kind is list:
        return [part if type(part) in _FIXED else detached(part) for part in value]
    try:
        return copy.deepcopy(value)
    except Exception:  # whatever an object's own __deepcopy__ or __reduce__ raises: such a thing has no form on a topic
        return value
