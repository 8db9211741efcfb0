"""Records of the control topics come back as they were, and what is foreign or newer is refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from sage.cluster.deployment import Deployment
from sage.cluster.desired import Desired, Leaving
from sage.cluster.names import ControlTopics
from sage.cluster.status import Check, StageStatus, TopologyStatus, WorkerStatus
from sage.errors import InvalidTopology

RECORDS: list[Any] = [
    Deployment("qa", 3, {"hash": "h"}, {"m:f": "1"}, ("ask",), "ann@laptop", 5, "more passages"),
    Desired(
        "qa", 3, "paused", 4, {"s": 2}, {"s": 1}, (Leaving(2, "old", ("older",)),), ("s",), {"qa.s": {"qa.a:0": 7}},
        True, 9,
    ),
    WorkerStatus("w1", "h", 1, 2, "0.1", {"disk": "a"}, True, 0.5, 10, ("qa",), 7),
    TopologyStatus(
        "w1", "qa", (StageStatus("s", 3, "running", ("qa.a:0",), transactional_ids=("t",)),),
        (Check(3, ("no",), "unready"),),
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
