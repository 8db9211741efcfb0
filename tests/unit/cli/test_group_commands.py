"""``sage groups`` on a broker in memory."""

from __future__ import annotations

import json

import pytest

from sage.model.partition import TopicPartition
from sage.ports import TopicSpec
from sage.testing.broker import InMemoryClients
from tests.unit.cli import memory_broker
from tests.unit.cli.conftest import Sage


@pytest.fixture(autouse=True)
def clients(monkeypatch: pytest.MonkeyPatch) -> InMemoryClients:
    made = memory_broker.use(monkeypatch)
    made.admin().create([TopicSpec("orders", 1), TopicSpec("shop.count.changelog", 1)])
    producer = made.producer()
    for number in range(4):
        producer.produce("orders", b"%d" % number)
    assert producer.flush(5) == 0
    reader = made.consumer("shop.count")
    where = TopicPartition("orders", 0)
    reader.assign({where: 0})
    reader.commit({where: 3})
    reader.close()
    return made


def test_groups_and_one_of_them(sage: Sage) -> None:
    assert [line.split() for line in sage("groups", "list").out.splitlines()] == [
        ["GROUP", "MEMBERS", "LAG", "TOPICS"],
        ["shop.count", "0", "1", "orders"],
    ]
    assert json.loads(sage("groups", "list", "-o", "json").out)[0]["topics"] == {"orders": 1}
    assert sage("groups", "list", "zz").err == "no groups that begin with zz\n"
    lines = [line.split() for line in sage("groups", "describe", "shop.count").out.splitlines()]
    assert lines[1] == ["orders", "0", "3", "4", "1", "-"]
    assert lines[-1] == ["total", "1"]
    assert json.loads(sage("groups", "describe", "shop.count", "-o", "json").out)["lag"] == 1


def test_a_reset_is_shown_before_it_is_done(sage: Sage) -> None:
    shown = sage("groups", "reset", "shop.count", "--to", "earliest")
    assert (shown.code, shown.out.splitlines()[1].split()) == (0, ["orders", "0", "3", "0", "4"])
    assert shown.err.splitlines() == [
        "3 records read once more; nothing was changed: add --execute",
        "shop.count keeps state, which stays: records that are read again change it again",
    ]
    refused = sage("groups", "reset", "shop.count", "--to", "earliest", "--execute")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err == "sage: Move 1 offset of shop.count? 3 records read once more. Say so with --yes\n"
    assert json.loads(sage("groups", "describe", "shop.count", "-o", "json").out)["lag"] == 1

    done = json.loads(sage("groups", "reset", "shop.count", "--to=-1", "--execute", "-y", "-o", "json").out)
    assert (done["executed"], done["read_again"], done["never_read"]) == (True, 1, 0)
    assert json.loads(sage("groups", "describe", "shop.count", "-o", "json").out)["lag"] == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("describe", "shop.cuont"), 4, "no group 'shop.cuont' on in-memory; did you mean shop.count?"),
        (("reset", "shop.count"), 2, "for example `sage groups reset qa.retrieve --to earliest`"),
        (("reset", "shop.count", "--to", "soon"), 2, "'soon' is no place; give earliest, latest"),
        (("reset", "shop.count", "--to", "latest", "-t", "nope"), 4, "topic nope: does not exist"),
        (("reset", "nobody", "--to", "latest"), 4, "group nobody: has read nothing"),
    ],
)
def test_what_is_not_there(sage: Sage, words: tuple[str, ...], code: int, says: str) -> None:
    found = sage("groups", *words)
    assert (found.code, found.out) == (code, "")
    assert says in found.err
