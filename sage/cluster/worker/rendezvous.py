"""Rendezvous hashing: who hosts what, the same in every process, without anybody deciding it.

Every worker gets a score for every unit; the highest ones host it. When a worker goes, only its own units move; when
one comes, it takes units over and the others keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b


def ranked(topology: str, unit: str, workers: Iterable[str]) -> tuple[str, ...]:
    """All ``workers`` in the order in which they are asked to host ``unit`` of ``topology``.

    >>> ranked("qa", "retrieve", ["w1", "w2", "w3"]) == ranked("qa", "retrieve", ["w3", "w1", "w2"])
    True
    """
    return tuple(sorted(workers, key=lambda worker: (_score(topology, unit, worker), worker), reverse=True))


@lru_cache(maxsize=200_000)
def _score(topology: str, unit: str, worker: str) -> bytes:
    # None of the names can hold the separator: two different triples never are the same text.
    return blake2b("\0".join((topology, unit, worker)).encode(), digest_size=16).digest()
