"""``sage topology run`` with steps that never return: the log names them and their partitions, and the exit says so."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from tests.support.brokers import ApacheBroker
from tests.support.programs import sage
from tests.support.records import everything, make_topic, values_of

STEPS = """
import asyncio
import threading

from sage import LocalEnvironment

LocalEnvironment.stop.__defaults__ = (2.0,)  # the time to drain, which does these steps no good


def fine(value: dict) -> dict:
    return value


def hang(value: dict) -> dict:
    threading.Event().wait()
    return value


async def hang_later(value: dict) -> dict:
    await asyncio.Event().wait()
    return value


async def hang_elsewhere(value: dict) -> dict:
    return await asyncio.to_thread(hang, value)
"""

TOPOLOGY = """
version: 1
name: {name}
steps:
  input: {{source: topic, config: {{topic: {source}}}}}
  fine: {{map: "stuck:fine", from: input}}
  output: {{sink: topic, from: fine, config: {{topic: {target}}}}}
  in-its-thread: {{map: "stuck:hang", from: input, on_error: fail}}
  in-a-thread-of-its-own: {{map: "stuck:hang", from: input, blocking: true}}
  on-the-loop: {{map: "stuck:hang_later", from: input}}
  in-a-thread-of-the-loop: {{map: "stuck:hang_elsewhere", from: input}}
  nowhere:
    sink: topic
    from: [in-its-thread, in-a-thread-of-its-own, on-the-loop, in-a-thread-of-the-loop]
    config: {{topic: {target}-never}}
"""

STUCK = ("in-its-thread", "in-a-thread-of-its-own", "on-the-loop", "in-a-thread-of-the-loop")


def test_steps_that_never_return_are_named_with_their_partitions_and_the_process_still_ends_with_1(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name, source, target = unique("stuck"), unique("in"), unique("out")
    clients = apache_kafka.clients()
    make_topic(clients, source, 2)
    (tmp_path / "stuck.py").write_text(STEPS, encoding="utf-8")
    (tmp_path / "topology.yaml").write_text(TOPOLOGY.format(name=name, source=source, target=target), encoding="utf-8")
    producer = clients.producer()
    for number in range(7):  # all in one partition: the other has nothing to read, and is not blamed
        producer.produce(source, b'{"id": %d}' % number, b"%d" % number, partition=1)
    assert producer.flush(30) == 0
    producer.close()

    arguments = ("topology", "run", "topology.yaml", "--bootstrap-servers", apache_kafka.bootstrap_servers)
    with sage(tmp_path, *arguments, environ={"SAGE_ALARM_AFTER": "6s"}) as run:
        for step in STUCK:
            run.wait_for(f'step "{step}" stands still: 2 partitions assigned, 7 records behind ({source}-1 by 7)')
        assert 'step "fine" stands still' not in run.output
        assert len(values_of(everything(clients, target))) == 7, "the others are not held up"
        run.process.send_signal(signal.SIGTERM)
        code = run.wait(60)
    last = run.output.strip().splitlines()[-1]
    assert code == 1, run.output
    for step in STUCK:
        assert f'step "{step}" stands still' in last
    assert 'step "fine"' not in last
    assert last.count("its code does not return") == 1
    assert last.count("records are at work that don't end") == 3
    assert "Traceback" not in run.output
