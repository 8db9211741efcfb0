"""What every StateStore promises, on RocksDB and in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage.ports import StateStore, StateStores
from sage.state.in_memory import MemoryStores
from sage.state.rocks import CHUNK, RocksStores


@pytest.fixture(params=["rocks", "memory"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> StateStores:
    return RocksStores(tmp_path / "state") if request.param == "rocks" else MemoryStores()


@pytest.fixture
def store(stores: StateStores) -> StateStore:
    return stores.open("shop", "count", 0)


def test_a_new_store_is_empty(store: StateStore) -> None:
    assert store.applied == 0
    assert store.get(b"k") is None
    assert list(store.scan()) == []


def test_writes_and_the_applied_offset_are_there_at_once(store: StateStore) -> None:
    store.apply({b"k": b"1", b"l": b"2"}, 7)
    assert (store.get(b"k"), store.get(b"l"), store.applied) == (b"1", b"2", 7)


def test_none_deletes(store: StateStore) -> None:
    store.apply({b"k": b"1", b"l": b"2"}, 2)
    store.apply({b"k": None, b"never-there": None}, 3)
    assert store.get(b"k") is None
    assert list(store.scan()) == [(b"l", b"2")]


def test_an_empty_value_is_a_value_and_an_empty_key_a_key(store: StateStore) -> None:
    store.apply({b"": b"", b"k": b""}, 1)
    assert list(store.scan()) == [(b"", b""), (b"k", b"")]


def test_no_writes_still_move_the_applied_offset(store: StateStore) -> None:
    store.apply({}, 12)
    assert store.applied == 12


def test_scan_gives_the_prefix_only_in_the_order_of_keys(store: StateStore) -> None:
    store.apply({b"b2": b"", b"a": b"", b"b": b"", b"b1": b"", b"c": b"", b"\xff": b""}, 1)
    assert [key for key, _ in store.scan(b"b")] == [b"b", b"b1", b"b2"]
    assert [key for key, _ in store.scan(b"b", b"b1")] == [b"b1", b"b2"]
    assert [key for key, _ in store.scan(b"b", b"a")] == [b"b", b"b1", b"b2"]
    assert [key for key, _ in store.scan(b"\xff")] == [b"\xff"]


def test_scan_reads_on_over_many_entries(store: StateStore) -> None:
    keys = [b"%06d" % number for number in range(2 * CHUNK + 1)]
    store.apply(dict.fromkeys(keys, b"v"), 1)
    assert [key for key, _ in store.scan()] == keys


def test_the_store_may_change_during_a_scan(store: StateStore) -> None:
    store.apply({b"a": b"1", b"b": b"2"}, 1)
    for key, _ in store.scan():
        store.apply({key: None}, 2)
    assert list(store.scan()) == []


def test_wipe_forgets_the_applied_offset_too(store: StateStore) -> None:
    store.apply({b"k": b"1", b"\xff\xff": b"2"}, 7)
    store.wipe()
    assert store.applied == 0
    assert list(store.scan()) == []
    store.apply({b"k": b"3"}, 1)
    assert list(store.scan()) == [(b"k", b"3")]


def test_what_is_there_is_there_after_opening_again(stores: StateStores, store: StateStore) -> None:
    store.apply({b"k": b"1"}, 2**40)
    store.close()
    again = stores.open("shop", "count", 0)
    assert (again.get(b"k"), again.applied) == (b"1", 2**40)


def test_stores_of_other_places_are_others(stores: StateStores, store: StateStore) -> None:
    store.apply({b"k": b"1"}, 1)
    others = [stores.open("shop", "count", 1), stores.open("shop", "sum", 0), stores.open("mall", "count", 0)]
    assert [other.get(b"k") for other in others] == [None, None, None]


def test_a_store_may_be_closed_in_the_middle_of_a_scan(stores: StateStores, store: StateStore) -> None:
    store.apply({b"a": b"1", b"b": b"2"}, 1)
    half = store.scan()
    next(half)
    store.close()
    assert stores.open("shop", "count", 0).get(b"a") == b"1"
    assert half is not None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.dictionaries(st.binary(max_size=3), st.none() | st.binary(max_size=3), max_size=6), min_size=1, max_size=8
    )
)
def test_it_is_a_dict_that_is_written_in_batches(stores: StateStores, batches: list[dict[bytes, bytes | None]]) -> None:
    store = stores.open("any", os.urandom(4).hex(), 0)
    expected: dict[bytes, bytes] = {}
    for number, writes in enumerate(batches):
        store.apply(writes, number + 1)
        expected = {key: value for key, value in {**expected, **writes}.items() if value is not None}
        assert list(store.scan()) == sorted(expected.items())
        assert store.applied == number + 1
    store.close()
