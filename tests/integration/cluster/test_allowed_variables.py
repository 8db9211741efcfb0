"""A secret of a step is a variable of the worker that runs it, and of no worker that was not told to show it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cluster.terminal import PATIENCE, Terminal
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, fill, make_topic, values_of
from tests.support.waiting import wait_until

ORDERS = 50
SECRET = "correct horse battery staple"

STEPS = """
import hashlib

from pydantic import BaseModel, SecretStr
from sage import Operator


class Sign(Operator):
    class Config(BaseModel):
        key: SecretStr

    def process(self, value, ctx):
        key = self.config.key.get_secret_value()
        ctx.logger.info("signed with %s", key)
        return {**value, "signed": hashlib.sha256(f"{key} {value['order']}".encode()).hexdigest()}
"""

TOPOLOGY = """
version: 1
name: {name}
guarantee: exactly_once
defaults: {{partitions: 2}}
steps:
  read: {{source: topic, config: {{topic: {name}-orders}}}}
  sign: {{operator: "signing_steps:Sign", from: read, config: {{key: "${{SHOP_KEY}}"}}}}
  out: {{sink: topic, from: sign, config: {{topic: {name}-signed}}}}
"""

REFUSED = "SHOP_KEY may not be read on this worker; start it with --allow-env SHOP_KEY"


@pytest.fixture
def terminal(tmp_path: Path, three_brokers: ApacheBroker, unique: Callable[[str], str]) -> Iterator[Terminal]:
    made = Terminal(tmp_path, three_brokers, unique("sign"), code="signing_steps")
    made.shell.write("signing_steps.py", STEPS)
    made.shell.write("sign.yaml", TOPOLOGY.format(name=made.name))
    yield made
    made.close()


def test_a_steps_secret_is_read_where_allow_env_names_it_and_refused_elsewhere(terminal: Terminal) -> None:
    name, clients = terminal.name, terminal.broker.clients()
    make_topic(clients, f"{name}-orders", 2, replicas=3)
    fill(clients, f"{name}-orders", ({"order": number} for number in range(ORDERS)))
    terminal.start("w1", SHOP_KEY=SECRET)
    terminal.until_online("w1")
    refused = terminal("topology", "deploy", "sign.yaml", "--wait", "--timeout", "30s", code=None)
    assert (refused.code, REFUSED in refused.err) == (3, True), refused

    terminal.start("w2", "--allow-env", "SHOP_KEY", SHOP_KEY=SECRET)
    terminal.until_online("w1", "w2")
    deployed = terminal("topology", "deploy", "sign.yaml", "--wait")
    assert f"{REFUSED} (on worker w1)" in deployed.err
    assert (REFUSED in str(terminal.problems("w1")), terminal.problems("w2")) == (True, [])

    def signed() -> list[tuple[int, str]]:
        found = values_of(everything(clients, f"{name}-signed"))
        return sorted((value["order"], value["signed"]) for value in found)

    wait_until(lambda: len(signed()) >= ORDERS, timeout=PATIENCE, what=f"all are signed\n{terminal.logs()}")
    assert signed() == [(n, hashlib.sha256(f"{SECRET} {n}".encode()).hexdigest()) for n in range(ORDERS)]
    said = terminal("topology", "logs", name, "--since", "1h").out
    assert "signed with" in said
    assert SECRET not in said + terminal("topology", "describe", name).out + terminal.logs()
