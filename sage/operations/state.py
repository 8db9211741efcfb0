"""What ``sage state`` does: keyed state as its changelog has it, wherever the worker runs that uses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage.errors import NotFound
from sage.model.keys import decode_key, encode_key, partition_for
from sage.model.names import changelog_topic
from sage.model.partition import TopicPartition
from sage.operations.reading import partitions_of, read_to_end
from sage.ports import KafkaClients, RawMessage
from sage.runtime.state.envelope import Envelope


@dataclass(frozen=True, slots=True)
class StateEntry:
    """What is kept for one key, committed changes only.

    Attributes:
        key: text where it is UTF-8, else bytes.
        state: JSON; ``None`` where there is none.
        timers: name to time, in milliseconds since the epoch.
        changed: milliseconds since the epoch of the last change.
        partition, offset: where the changelog has it.
        is_forgotten: it was cleared, or its ttl was over: there is nothing any more.
    """

    key: str | bytes
    state: Any
    timers: Mapping[str, int] = field(default_factory=dict)
    changed: int = 0
    partition: int = 0
    offset: int = 0
    is_forgotten: bool = False


def show_state(
    clients: KafkaClients,
    topology: str,
    step: str,
    key: str | bytes,
    *,
    partition: int | None = None,
    timeout: float = 30.0,
) -> StateEntry:
    """The state of ``key`` in a ``process`` step.

    The partition where Kafka puts such a key is read first; the others only where it is not there, as for a foreign
    topic whose producer hashes otherwise.

    Args:
        clients: where the changelog is.
        topology, step: whose state.
        key: as text (numbers and other scalars as JSON), or the bytes themselves.
        partition: read this one only.
        timeout: seconds without any answer after which to give up.

    Raises:
        NotFound: the step keeps no state, has no such partition, or never had this key.
        DeadlineExceeded: the broker did not answer in time.
    """
    wanted = encode_key(key) or b""
    topic = changelog_topic(topology, step)
    admin = clients.admin()
    try:
        all_of_them = partitions_of(
            admin, topic, advice=f'step "{step}" of {topology!r} keeps no state, or was never deployed here'
        )
        starts, ends = admin.start_offsets(all_of_them), admin.end_offsets(all_of_them)
    finally:
        admin.close()
    for asked in _in_turn(all_of_them, wanted, partition):
        found = _last(clients, {at: starts[at] for at in asked}, {at: ends[at] for at in asked}, wanted, timeout)
        if found is not None:
            return _entry(found)
    raise NotFound(
        f"key {decode_key(wanted)!r} never had any state"
        + (f" in partition {partition}" if partition is not None else "")
        + f"; the keys that do: `sage topics tail {topic}`",
        where=f'{topology} step "{step}"',
    )


def _in_turn(partitions: list[TopicPartition], key: bytes, partition: int | None) -> list[Sequence[TopicPartition]]:
    if partition is not None:
        chosen = [at for at in partitions if at.partition == partition]
        if not chosen:
            raise NotFound(
                f"has no partition {partition}; it has {len(partitions)}", where=f"topic {partitions[0].topic}"
            )
        return [chosen]
    first = partitions[partition_for(key, len(partitions))]
    return [[first], [at for at in partitions if at != first]]


def _last(
    clients: KafkaClients,
    starts: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    key: bytes,
    timeout: float,
) -> RawMessage | None:
    """The last record of the key in its partition; of several partitions, where it moved once, the youngest."""
    last: dict[int, RawMessage] = {}
    for message in read_to_end(clients, starts, ends, timeout=timeout):
        there = last.get(message.partition())
        if message.key() == key and (there is None or message.offset() > there.offset()):
            last[message.partition()] = message
    return max(last.values(), key=lambda message: message.timestamp()[1], default=None)


def _entry(message: RawMessage) -> StateEntry:
    value = message.value()
    envelope = Envelope() if value is None else Envelope.decode(value)
    return StateEntry(
        key=decode_key(message.key()) or "",
        state=envelope.state,
        timers=envelope.timers,
        changed=envelope.changed if envelope.changed is not None else message.timestamp()[1],
        partition=message.partition(),
        offset=message.offset(),
        is_forgotten=value is None,
    )
