"""Records of the control topics come back as they were, and what is foreign or newer is refused with a reason."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from sage.cluster.deployment import Deployment
from sage.cluster.desired import Desired, Leaving
from sage.cluster.names import ControlTopics
from sage.cluster.status import Check, Problem, StageStatus, TopologyStatus, WorkerStatus
from sage.errors import InvalidTopology
from sage.model.secrets import remember_secret

RECORDS: list[Any] = [
    Deployment("qa", 3, {"hash": "h"}, {"m:f": "1"}, ("ask",), "ann@laptop", 5, "more passages"),
    Desired(
        "qa", 3, "paused", 4, {"s": 2}, {"s": 1}, (Leaving(2, "old", ("older",)),), ("s",), {"qa.s": {"qa.a:0": 7}},
        True, 9,
    ),
    WorkerStatus("w1", "h", 1, 2, "0.1", {"disk": "a"}, True, 0.5, 10, ("qa",), 7),
    TopologyStatus(
        "w1", "qa", (StageStatus("s", 3, "running", ("qa.a:0",), transactional_ids=("t",)),),
        (Check(3, ("no",), "unready"), Check.of(4, "unready", [Problem("no", "qa.py:9", "SAGE301")])),
    ),
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_comes_back_as_it_was(record: Any) -> None:
    assert type(record).decode(record.encode()) == record


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize(
    ("data", "reason"), [(b"{", "no JSON"), (b"[]", "not written by SAGE"), (b'{"format": 99}', "newer SAGE")]
)
def test_what_this_version_cannot_read_is_refused(record: Any, data: bytes, reason: str) -> None:
    with pytest.raises(InvalidTopology, match=reason):
        type(record).decode(data)


def test_topics_share_a_prefix_without_dots() -> None:
    assert ControlTopics("team-a").topologies == "team-a.topologies"
    with pytest.raises(InvalidTopology, match="dots"):
        ControlTopics("team.a")


def test_words_of_an_older_worker_are_read_without_what_it_did_not_say() -> None:
    stage = {"stage": "s", "version": 3, "state": "running", "partitions": ["qa.a:0"], "problem": "it stopped once"}
    check = {"version": 3, "problems": ["qa.py:9: no [SAGE301]"], "kind": "unready"}
    data = orjson.dumps({"format": 1, "worker": "w1", "topology": "qa", "stages": [stage], "checks": [check]})
    found = TopologyStatus.decode(data)
    assert [each.stalled for each in found.stages] == [False]
    (read,) = found.checks
    assert (read.problems, read.parts) == (("qa.py:9: no [SAGE301]",), ())
    assert list(map(str, read.found)) == ["qa.py:9: no [SAGE301]"]


def test_words_of_a_newer_worker_are_read_without_what_is_new_in_them() -> None:
    check = {"version": 3, "problems": ["no"], "kind": "unready", "parts": [{"message": "no", "new": 1}], "new": 1}
    stage = {"stage": "s", "version": 3, "state": "running", "new": 1}
    data = {"format": 1, "worker": "w1", "topology": "qa", "stages": [stage], "checks": [check], "new": {"a": 1}}
    found = TopologyStatus.decode(orjson.dumps(data))
    assert (found.stages[0].state, found.checks[0].parts) == ("running", (Problem("no"),))
    seen = WorkerStatus.decode(orjson.dumps({**orjson.loads(RECORDS[2].encode()), "new": 1}))
    assert seen == RECORDS[2]


def test_no_part_of_a_problem_quotes_a_secret() -> None:
    remember_secret("sk-parts-0001")
    check = Check.of(1, "unready", [Problem("no service takes sk-parts-0001")])
    assert b"sk-parts-0001" not in TopologyStatus("w1", "qa", (), (check,)).encode()
