"""``sage doctor`` on real brokers: the bound of a takeover is read from them."""

from __future__ import annotations

import json

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.brokers import Broker

pytestmark = pytest.mark.integration


def test_the_brokers_tell_how_soon_a_dead_worker_is_replaced(sage: Shell, broker: Broker) -> None:
    done = sage("doctor", "--bootstrap-servers", broker.bootstrap_servers, "-o", "json")
    found = {one["check"]: one for one in json.loads(done.out)}
    assert found["kafka"]["state"] == "ok"
    assert found["groups"]["state"] == ("info" if broker.is_embedded else "ok")
    here, there = "embedded broker: a killed", "KIP-848: a dead worker's partitions move after 6 s"
    expected = here if broker.is_embedded else there
    assert found["groups"]["found"].startswith(expected)
    assert done.code == (1 if any(one["state"] == "fail" for one in found.values()) else 0)


def test_one_line_a_check_and_exit_1_when_something_fails(sage: Shell) -> None:
    done = sage("doctor", "--bootstrap-servers", "127.0.0.1:1")
    assert done.code == 1
    failed = [line for line in done.out.splitlines() if line.startswith("fail")]
    assert any("cannot reach 127.0.0.1:1" in line for line in failed)
    assert done.err.rstrip().endswith("checks failed")
