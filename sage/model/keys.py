"""Keys on the wire, and the partition they belong to."""

from __future__ import annotations

import orjson

from sage.errors import RecordFailure
from sage.model.json import Json


def encode_key(key: Json | bytes) -> bytes | None:
    """A key's bytes: text as UTF-8, bytes as they are, other values as JSON; ``None`` is no key.

    ``0``, ``""`` and ``False`` are keys. The same value gives the same bytes in every process.

    Raises:
        RecordFailure: it has no such form.
    """
    if key is None or isinstance(key, bytes):
        return key
    try:
        return key.encode() if isinstance(key, str) else orjson.dumps(key, option=orjson.OPT_SORT_KEYS)
    except (TypeError, UnicodeEncodeError) as error:
        raise RecordFailure(
            f"the key {type(key).__name__} has no form on the wire: {error}; give text, bytes, or a JSON value"
        ) from error


def decode_key(key: bytes | None) -> str | bytes | None:
    """A key as components see it: text where it is UTF-8, else bytes."""
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key


def murmur2(data: bytes) -> int:
    """Kafka's own 32-bit hash of a key (``org.apache.kafka.common.utils.Utils.murmur2``), unsigned."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    rest = len(data) & 3
    if rest == 3:
        h ^= data[whole + 2] << 16
    if rest >= 2:
        h ^= data[whole + 1] << 8
    if rest >= 1:
        h = (h ^ data[whole]) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's default partitioner and librdkafka's ``murmur2_random`` choose it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
