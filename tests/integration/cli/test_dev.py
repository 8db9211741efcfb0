"""``sage dev --watch``: a topology is changed while it runs, breaks, is mended, and loses no record."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import orjson

from tests.support.brokers import EmbeddedBroker
from tests.support.programs import Program, sage
from tests.support.records import everything, fill, make_topic
from tests.support.waiting import wait_until

TOPOLOGY = """
version: 1
name: {name}
steps:
  read: {{source: topic, config: {{topic: {name}-in}}}}
  work: {{map: "steps:work", from: read}}
  out: {{sink: topic, from: work, config: {{topic: {name}-out}}}}
"""


def test_a_topology_is_changed_broken_and_mended_while_it_runs(
    embedded_broker: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, clients = unique("dev"), embedded_broker.clients()
    make_topic(clients, f"{name}-in")
    (tmp_path / "flow.yaml").write_text(TOPOLOGY.format(name=name))

    def write(factor: str) -> None:
        (tmp_path / "steps.py").write_text(f"def work(value):\n    return value * {factor}\n")

    def until_out(*wanted: int) -> None:
        wait_until(
            lambda: [orjson.loads(each.value() or b"0") for each in everything(clients, f"{name}-out")] == [*wanted],
            timeout=60, what=f"{wanted} came out",
        )  # fmt: skip

    def told(program: Program, text: str) -> None:
        program.wait_for(text, timeout=60)

    write("10")
    with sage(tmp_path, "dev", "--watch", "--bootstrap-servers", embedded_broker.bootstrap_servers) as program:
        fill(clients, f"{name}-in", [1])
        until_out(10)
        write("100")
        told(program, "steps.py changed; starting again")
        fill(clients, f"{name}-in", [2])
        until_out(10, 200)
        write("(")
        told(program, "steps.py changed; the topology as it was goes on")
        fill(clients, f"{name}-in", [3])
        until_out(10, 200, 300)
        program.process.send_signal(signal.SIGINT)
        assert program.wait(60) == 130, program.output


def test_the_topology_ends_with_dev_when_the_terminal_goes_away(
    embedded_broker: EmbeddedBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name = unique("dev")
    make_topic(embedded_broker.clients(), f"{name}-in")
    (tmp_path / "flow.yaml").write_text(TOPOLOGY.format(name=name))
    (tmp_path / "steps.py").write_text("def work(value):\n    return value\n")
    with sage(tmp_path, "dev", "--watch", "--bootstrap-servers", embedded_broker.bootstrap_servers) as program:
        program.wait_for(f"{name} runs", timeout=60)
        pid = program.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert children
        program.process.send_signal(signal.SIGHUP)
        assert program.wait(60) == 128 + signal.SIGHUP, program.output
        assert not [child for child in children if Path(f"/proc/{child}").exists()]
