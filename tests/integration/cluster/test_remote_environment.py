"""A program that deploys to worker processes on Apache Kafka: its file and its list stay with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.cluster.terminal import PATIENCE, Terminal
from tests.support.brokers import ApacheBroker
from tests.support.waiting import wait_until

LINES = 1_000

STEPS = """
import asyncio


async def price(line):
    await asyncio.sleep(0.05)
    return {"line": line, "length": len(line)}


def label(value):
    return {**value, "labelled": True}
"""

PROGRAM = """
import json
import sys

from sage import RemoteEnvironment
from sage_connectors import FileSource

import remote_steps

label = remote_steps.label if sys.argv[2] == "module" else lambda value: value

with RemoteEnvironment(sys.argv[1], guarantee="exactly_once", defaults={"partitions": 4}) as env:
    found = (env.from_source(FileSource, {"path": "orders.txt"})
        .map(remote_steps.price, name="price", concurrency=2, labels={"disk": "large"})
        .map(label, name="label", blocking=True)
        .collect())
    report = env.run_once(timeout=150)
    print(json.dumps({"found": found, "complete": report.complete, "dead": report.dead_letters,
        "steps": list(report.steps), "in": report.read, "out": report.delivered}))
"""


@pytest.fixture
def terminal(tmp_path: Path, apache_kafka: ApacheBroker, unique: Callable[[str], str]) -> Iterator[Terminal]:
    made = Terminal(tmp_path, apache_kafka, unique("remote"), code="remote_steps")
    made.shell.write("remote_steps.py", STEPS)
    made.shell.write("program.py", PROGRAM)
    made.shell.write("orders.txt", "".join(f"order {number}\n" for number in range(LINES)))
    yield made
    made.close()


def program(terminal: Terminal, label: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "program.py", terminal.name, label], cwd=terminal.shell.folder,
        env=terminal.shell.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def hosted(terminal: Terminal, worker: str) -> set[str]:
    return {stage["stage"] for stage in terminal.data("worker", "describe", worker)["stages"]}


def test_a_programs_lines_are_worked_on_by_labelled_workers_and_one_that_dies_costs_none(terminal: Terminal) -> None:
    terminal.start("w1", "--label", "disk=large")
    terminal.start("w2", "--label", "disk=large")
    terminal.start("w3")
    terminal.until_online("w1", "w2", "w3")
    running = program(terminal, "module")

    def priced() -> int:
        topics = {row["name"]: row["records"] for row in terminal.data("topics", "list")}
        return int(topics.get(f"{terminal.name}.price", 0))

    try:
        wait_until(lambda: running.poll() is not None or priced() > 20, timeout=PATIENCE, what="work has begun")
        assert running.poll() is None, running.communicate()
        assert (hosted(terminal, "w1"), hosted(terminal, "w3")) == ({"price", "label"}, {"label"})
        terminal.kill("w1")
        assert priced() < LINES, "it died too late"
        out, err = running.communicate(timeout=200)
    finally:
        running.kill()
    assert running.returncode == 0, err + terminal.logs()
    said = json.loads(out)
    assert (said["complete"], said["dead"], said["in"], said["out"]) == (True, 0, LINES, LINES)
    assert said["steps"][1:3] == ["price", "label"], "what workers did is counted too"
    lines = sorted(value["line"] for value in said["found"])
    assert lines == sorted(f"order {number}" for number in range(LINES)), "each line comes back once"
    assert all(value["labelled"] for value in said["found"])
    assert terminal.data("topology", "status", terminal.name)["state"] == "running", "what was deployed goes on"
    terminal("topology", "drain", terminal.name, "--wait")
    terminal("topology", "delete", terminal.name, "--purge", "--yes")
    assert terminal.data("groups", "list", f"{terminal.name}.") == []


def test_what_workers_can_t_import_is_told_before_anything_is_deployed(terminal: Terminal) -> None:
    running = program(terminal, "lambda")
    out, err = running.communicate(timeout=60)
    assert (running.returncode != 0, out) == (True, "")
    assert "workers cannot import a lambda" in err
    assert "[SAGE401]" in err
    assert terminal("topology", "list").err.startswith("nothing is deployed")
