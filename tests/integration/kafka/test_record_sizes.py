"""Records at the size limit and over it, here and at the broker: each ends as an output or a dead letter."""

from __future__ import annotations

from typing import Any

from sage.kafka.config import DEFAULT_MESSAGE_MAX_BYTES
from sage.ports import RawMessage, TopicSpec
from tests.integration.kafka.conftest import PARTITIONS, Stages
from tests.support.records import fill, make_topic, values_of

BROKER_LIMIT = 20_000


def numbers(messages: list[RawMessage]) -> list[int]:
    return sorted(value["n"] for value in values_of(messages))


def test_around_the_limit_every_record_is_an_output_or_a_dead_letter(stages: Stages) -> None:
    def grow(value: dict[str, int]) -> dict[str, Any]:
        return {**value, "x": "x" * value["size"]}

    make_topic(stages.broker.clients(), stages.source, PARTITIONS)
    # Key, headers and the record's frame take some 200 bytes: within these sizes lies the limit, to the byte.
    sizes = [10, *range(DEFAULT_MESSAGE_MAX_BYTES - 400, DEFAULT_MESSAGE_MAX_BYTES + 60, 23), 2_000_000]
    records = [{"n": n, "k": n % 3, "size": size} for n, size in enumerate(sizes)]
    fill(stages.broker.clients(), stages.source, records, keyed_by="k")
    stages.build(grow)

    assert stages.env.run_once(120).complete

    stages.come_to_rest()
    for kind in stages.kinds:
        written, dead = numbers(stages.written(kind)), numbers(stages.letters(kind))
        assert sorted([*written, *dead]) == list(range(len(sizes))), kind
        assert 0 in written, kind
        assert len(sizes) - 1 in dead, kind
        assert max(written) < min(dead), f"{kind}: a smaller record is dead, and a larger one is not"
        assert min(dead) > 5, f"{kind}: what fits was refused"


def test_what_the_broker_refuses_in_mid_batch_costs_only_its_record(stages: Stages) -> None:
    def grow(value: dict[str, int]) -> dict[str, Any]:
        return {**value, "x": "x" * (BROKER_LIMIT if value["n"] % 50 == 25 else 10)}

    clients = stages.broker.clients()
    make_topic(clients, stages.source, PARTITIONS)
    admin = clients.admin()
    admin.create(
        [
            TopicSpec(stages.target(kind), PARTITIONS, config={"max.message.bytes": str(BROKER_LIMIT)})
            for kind in stages.kinds
        ]
    )
    admin.close()
    fill(clients, stages.source, [{"n": n, "k": n % 7} for n in range(200)], keyed_by="k")
    stages.build(grow)

    assert stages.env.run_once(120).complete

    stages.come_to_rest()
    refused = [25, 75, 125, 175]
    for kind in stages.kinds:
        written = numbers(stages.written(kind))
        assert sorted(set(written)) == [n for n in range(200) if n not in refused], kind
        dead = numbers(stages.letters(kind))
        assert sorted(set(dead)) == refused, kind
        if stages.env.topology.guarantee == "exactly_once":
            assert (len(written), len(dead)) == (196, 4), kind
