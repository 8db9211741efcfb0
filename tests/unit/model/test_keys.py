"""Keys on the wire, and Kafka's own hash of them."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.errors import RecordFailure
from sage.model.keys import decode_key, encode_key, murmur2, partition_for

KAFKAS_OWN = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]
"""From org.apache.kafka.common.utils.UtilsTest: key and signed hash."""


@pytest.mark.parametrize(("key", "signed"), KAFKAS_OWN)
def test_murmur2_is_kafkas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed & 0xFFFFFFFF


@pytest.mark.parametrize(("key", "signed"), KAFKAS_OWN)
def test_a_key_goes_to_the_partition_of_kafkas_default_partitioner(key: bytes, signed: int) -> None:
    for partitions in (1, 3, 4, 12):
        assert partition_for(key, partitions) == (signed & 0x7FFFFFFF) % partitions


@given(st.binary(max_size=40), st.integers(1, 64))
def test_every_key_has_a_partition(key: bytes, partitions: int) -> None:
    assert 0 <= partition_for(key, partitions) < partitions


def test_keys_spread_over_partitions() -> None:
    counts = Counter(partition_for(f"user-{number}".encode(), 8) for number in range(8_000))
    assert min(counts.values()) > 800


@pytest.mark.parametrize(
    ("key", "data"),
    [
        (None, None),
        ("user-1", b"user-1"),
        ("", b""),
        ("日本", "日本".encode()),
        (b"\xff\x00", b"\xff\x00"),
        (0, b"0"),
        (False, b"false"),
        (1.5, b"1.5"),
        ([1, "a"], b'[1,"a"]'),
        ({"b": 1, "a": 2}, b'{"a":2,"b":1}'),
    ],
)
def test_a_key_has_one_form_on_the_wire(key: object, data: bytes | None) -> None:
    assert encode_key(key) == data  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ({1, 2}, "the key set has no form on the wire: Type is not JSON serializable: set; give text, bytes"),
        (2**70, "the key int has no form on the wire: Integer exceeds 64-bit range"),
        ("\ud800", "the key str has no form on the wire: 'utf-8' codec can't encode"),
    ],
)
def test_a_key_without_a_form_is_a_failure_of_its_record_that_says_so(key: Any, told: str) -> None:
    with pytest.raises(RecordFailure, match=re.escape(told)):
        encode_key(key)


@given(st.dictionaries(st.text(), st.integers(-(2**53), 2**53), max_size=5))
def test_equal_keys_have_equal_bytes(key: dict[str, int]) -> None:
    assert encode_key(dict(reversed(key.items()))) == encode_key(key)  # type: ignore[arg-type]


@given(st.text())
def test_text_keys_come_back(key: str) -> None:
    assert decode_key(encode_key(key)) == key


def test_a_key_that_is_no_text_is_seen_as_bytes() -> None:
    assert decode_key(b"\xff\xfe") == b"\xff\xfe"
    assert decode_key(None) is None
