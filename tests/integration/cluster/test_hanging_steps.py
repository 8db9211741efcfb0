"""Workers whose steps never return end within their time all the same, say what they left, and others do it."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cluster.terminal import PATIENCE, Terminal
from tests.integration.cluster.workers import DRAIN, MARGIN
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, fill, make_topic, values_of
from tests.support.waiting import wait_until

ORDERS = 400
HANGING = {"ask": 50, "work": 250}
"""The order at which each step hangs, in the process that meets it first."""

STEPS = f"""
import asyncio
import os
import threading

HANGING = {HANGING}


def is_first(step, value):
    if value["order"] != HANGING[step]:
        return False
    try:
        with open("hung-in-" + step, "x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def work(value):
    if is_first("work", value):
        threading.Event().wait()
    return value


async def ask(value):
    if is_first("ask", value):
        await asyncio.Event().wait()
    return value
"""

TOPOLOGY = """
version: 1
name: {name}
guarantee: exactly_once
defaults: {{partitions: 4}}
steps:
  read: {{source: topic, config: {{topic: {name}-orders}}}}
  work: {{map: "hanging_steps:work", from: read}}
  ask: {{map: "hanging_steps:ask", from: work, concurrency: 8, timeout: 10m}}
  out: {{sink: topic, from: ask, config: {{topic: {name}-done}}}}
"""


@pytest.fixture
def terminal(tmp_path: Path, three_brokers: ApacheBroker, unique: Callable[[str], str]) -> Iterator[Terminal]:
    made = Terminal(tmp_path, three_brokers, unique("hang"), code="hanging_steps")
    made.shell.write("hanging_steps.py", STEPS)
    made.shell.write("hanging.yaml", TOPOLOGY.format(name=made.name))
    yield made
    made.close()


def test_workers_whose_steps_never_return_end_in_time_and_others_do_what_they_left(terminal: Terminal) -> None:
    name, clients = terminal.name, terminal.broker.clients()
    make_topic(clients, f"{name}-orders", 4, replicas=3)
    for worker in ("w1", "w2", "w3"):
        terminal.start(worker)
    terminal.until_online("w1", "w2", "w3")
    terminal("topology", "deploy", "hanging.yaml", "--wait")
    fill(clients, f"{name}-orders", ({"order": number} for number in range(ORDERS // 2)), keyed_by="order")
    hanging = {hanging_in(terminal, "ask")}
    fill(clients, f"{name}-orders", ({"order": number} for number in range(ORDERS // 2, ORDERS)), keyed_by="order")
    hanging.add(hanging_in(terminal, "work"))
    began = time.monotonic()
    for worker in hanging:
        terminal.workers[worker].send_signal(signal.SIGTERM)
    for worker in hanging:
        assert terminal.workers[worker].wait(DRAIN + MARGIN) == 0, terminal.logs()
    assert time.monotonic() - began < DRAIN + MARGIN
    left = f"{name}.work did not stop in time; what it had not committed is read again"
    lines = terminal("topology", "logs", name, "--level", "error", "-o", "json").out.splitlines()
    assert any(left in json.loads(line)["message"] for line in lines), terminal.logs()

    def done() -> list[int]:
        return sorted(value["order"] for value in values_of(everything(clients, f"{name}-done")))

    wait_until(lambda: len(done()) >= ORDERS, timeout=PATIENCE, what=f"others do the rest\n{terminal.logs()}")
    assert done() == list(range(ORDERS))


def hanging_in(terminal: Terminal, step: str) -> str:
    """The worker in which it hangs."""
    file = terminal.shell.folder / f"hung-in-{step}"
    pid = wait_until(lambda: file.exists() and file.read_text(), timeout=PATIENCE, what=f"{step} hangs")
    return next(worker for worker, process in terminal.workers.items() if process.pid == int(pid))
