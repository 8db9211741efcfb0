"""Looking at the state of a key."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sage.errors import NotFound, StageStopped
from sage.model.keys import partition_for
from sage.operations.state import StateEntry, show_state
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients

CHANGELOG = "shop.count.changelog"
Write = Callable[..., None]
HOME = partition_for(b"ann", 3)


def test_the_last_entry_of_the_key_is_shown(clients: InMemoryClients, write: Write) -> None:
    write(CHANGELOG, [b'{"s":{"n":1}}'], key=b"ann", partitions=3, partition=HOME, timestamp=1_000)
    write(CHANGELOG, [b'{"s":{"n":9}}'], key=b"bob", partition=HOME, timestamp=1_500)
    write(CHANGELOG, [b'{"t":{"late":9000},"s":{"n":2}}'], key=b"ann", partition=HOME, timestamp=2_000)
    assert show_state(clients, "shop", "count", "ann") == StateEntry(
        "ann", {"n": 2}, {"late": 9_000}, changed=2_000, partition=HOME, offset=2
    )


def test_the_time_of_the_last_change_is_the_entrys_own_where_it_has_one(clients: InMemoryClients, write: Write) -> None:
    write(CHANGELOG, [b'{"s":{"n":1},"c":77}'], key=b"ann", timestamp=1_000)
    assert show_state(clients, "shop", "count", b"ann").changed == 77


def test_what_was_forgotten_is_told(clients: InMemoryClients, write: Write) -> None:
    write(CHANGELOG, [b'{"s":{"n":1}}', None], key=b"ann", timestamp=1_000)
    found = show_state(clients, "shop", "count", "ann")
    assert (found.is_forgotten, found.state, found.timers, found.changed) == (True, None, {}, 1_001)


def test_a_key_of_a_foreign_partitioner_is_found_elsewhere(clients: InMemoryClients, write: Write) -> None:
    elsewhere = (HOME + 1) % 3
    write(CHANGELOG, [b'{"s":{"n":1}}'], key=b"ann", partitions=3, partition=elsewhere)
    assert show_state(clients, "shop", "count", "ann").partition == elsewhere
    assert show_state(clients, "shop", "count", "ann", partition=elsewhere).state == {"n": 1}
    with pytest.raises(NotFound, match=f"never had any state in partition {HOME}"):
        show_state(clients, "shop", "count", "ann", partition=HOME)


def test_uncommitted_changes_are_not_shown(clients: InMemoryClients, write: Write) -> None:
    write(CHANGELOG, [b'{"s":{"n":1}}'], key=b"ann")
    producer = clients.producer(transactional_id="x")
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(CHANGELOG, b'{"s":{"n":2}}', b"ann", partition=0)
    producer.flush(5)
    assert show_state(clients, "shop", "count", "ann").state == {"n": 1}


def test_keys_that_are_no_text_are_given_as_bytes(clients: InMemoryClients, write: Write) -> None:
    write(CHANGELOG, [b'{"s":{"n":1}}'], key=b"\xff\x00")
    assert show_state(clients, "shop", "count", b"\xff\x00").key == b"\xff\x00"


def test_an_empty_key_is_a_key(clients: InMemoryClients, write: Write) -> None:
    write(CHANGELOG, [b'{"s":{"n":1}}'], key=b"")
    assert show_state(clients, "shop", "count", "").state == {"n": 1}


def test_a_key_without_state_says_where_to_look(clients: InMemoryClients, write: Write) -> None:
    write(CHANGELOG, [b'{"s":{"n":1}}'], key=b"ann")
    with pytest.raises(NotFound, match=r"key 'bob' never had any state; .* `sage topics tail shop\.count"):
        show_state(clients, "shop", "count", "bob")


def test_a_step_without_state_is_told(clients: InMemoryClients) -> None:
    with pytest.raises(NotFound, match="step \"clean\" of 'shop' keeps no state"):
        show_state(clients, "shop", "clean", "ann")


def test_a_partition_that_is_not_there_is_told(clients: InMemoryClients) -> None:
    clients.admin().create([TopicSpec(CHANGELOG, 2)])
    with pytest.raises(NotFound, match="has no partition 7; it has 2"):
        show_state(clients, "shop", "count", "ann", partition=7)


def test_what_no_sage_wrote_is_told(clients: InMemoryClients, write: Write) -> None:
    write(CHANGELOG, [b"by hand"], key=b"ann")
    with pytest.raises(StageStopped, match="no key's state"):
        show_state(clients, "shop", "count", "ann")
