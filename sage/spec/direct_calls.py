"""Calls without a journal: for operators that are used outside a topology, and in tests."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from sage.spec.call_results import decode_result, encode_result, result_of


def idempotency_key(place: str, name: str) -> str:
    """The same text for the same place (record and step) and name of a call."""
    return hashlib.blake2b(f"{place}/{name}".encode(), digest_size=16).hexdigest()


class DirectCalls:
    """The ``Calls`` of a context outside the runtime: makes every call, keeps nothing.

    Results go through their journaled form all the same, so that a test sees what a stage would.

    Args:
        place: names record and step, for idempotency keys.
    """

    def __init__(self, place: str = "") -> None:
        self._place = place

    async def call(self, name: str, function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        """The function's result. Raises RecordFailure for one that a journal could not give back."""
        return decode_result(encode_result(await result_of(name, function, args, kwargs), function), function)

    def idempotency_key(self, name: str) -> str:
        """The same for the same place and name."""
        return idempotency_key(self._place, name)
