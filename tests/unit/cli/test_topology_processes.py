"""What a process of several is started with, and what is refused before any is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage.cli.commands.topology_run import _child_arguments
from tests.unit.cli.conftest import Sage


def test_a_child_gets_the_same_options_but_the_number() -> None:
    assert _child_arguments(
        "qa.yaml", "kafka:9092", Path("kafka.properties"), Path("data"), until_idle=True, timeout="2m",
        from_beginning=True, strict_edges=True,
    ) == [
        "topology", "run", "qa.yaml", "--data-dir", "data", "--bootstrap-servers", "kafka:9092",
        "--kafka-config", "kafka.properties", "--until-idle", "--timeout", "2m", "--from-beginning",
        "--strict-edges",
    ]  # fmt: skip
    bare = _child_arguments(
        "qa.yaml", None, None, Path(".sage"), until_idle=False, timeout=None, from_beginning=False, strict_edges=False
    )
    assert bare == ["topology", "run", "qa.yaml", "--data-dir", ".sage"]


@pytest.mark.parametrize("count", ["0", "-1"])
def test_no_process_at_all_is_refused(sage: Sage, count: str) -> None:
    found = sage("topology", "run", "qa.yaml", "--processes", count)
    assert (found.code, found.out) == (2, "")
    assert "--processes is 1 or more" in found.err
