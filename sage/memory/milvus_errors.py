"""pymilvus' errors as ours."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from sage.errors import DeadlineExceeded, MemoryFailure, NotFound, SageError, Unauthorized, Unreachable

NOT_LOADED = 101
_NO_COLLECTION = 100
_UNAVAILABLE = 2


def as_sage_error(error: Any, address: str, collection: str) -> SageError:
    """What a ``MilvusException`` means to a user. The server's own words are kept to their first line."""
    reason = str(getattr(error, "message", "") or error).strip()
    line = reason.splitlines()[0] if reason else type(error).__name__
    low = reason.lower()
    if error.code == _NO_COLLECTION or "can't find collection" in low or "collection not found" in low:
        return not_found(collection)
    if "unauthenticated" in low or "auth check failure" in low or "permission" in low:
        return Unauthorized(f"memory at {shown(address)} refused the token; check the memory's token")
    if error.code == _UNAVAILABLE or "unavailable" in low or "fail connecting" in low:
        return Unreachable(
            f"cannot reach the memory at {shown(address)}. Start it with `sage up`, or check the memory's uri"
        )
    if "deadline_exceeded" in low or "retry timeout" in low:
        return DeadlineExceeded(f"memory at {shown(address)} did not answer in time; see `sage status`")
    place = f"collection {collection!r}" if collection else f"memory at {shown(address)}"
    return MemoryFailure(f"{place}: {line}")


def not_found(collection: str) -> NotFound:
    """A collection that isn't there."""
    return NotFound(f"collection {collection!r} does not exist")


def shown(address: str) -> str:
    """The address without a user or password in it."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 19530}"
