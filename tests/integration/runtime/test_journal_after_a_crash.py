"""Workers that are killed in mid-call, on Apache Kafka, with a model server that counts what it sells."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import ApacheBroker
from tests.support.llm_server import FakeOpenAI
from tests.support.programs import Program, sage
from tests.support.records import everything, fill, make_topic, total_lag, values_of
from tests.support.waiting import wait_until

QUESTIONS, PARTITIONS, CONCURRENCY, KILLS, SEED = 480, 4, 8, 3, 20_261

TOPOLOGY = """
version: 1
name: {name}
guarantee: {guarantee}
steps:
  input: {{source: topic, config: {{topic: {source}}}}}
  generate:
    operator: "counted:CountedGenerator"
    from: input
    concurrency: {concurrency}
    config: {{model: fake-model, base_url: "{url}"}}
  output: {{sink: topic, from: generate, config: {{topic: {target}}}}}
"""

COUNTED = """
import os

from sage.operators import OpenAIGenerator


class CountedGenerator(OpenAIGenerator):
    \"\"\"Writes a line for each try of a record, whether its answer is bought or found in the journal.\"\"\"

    async def process(self, value, ctx):
        line = os.open("tries.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(line, f"{value['id']}\\n".encode())
        os.close(line)
        return await super().process(value, ctx)
"""


class Shop:
    """Sells answers over HTTP, takes a while for each, and keeps the books."""

    def __init__(self) -> None:
        self._never = threading.Event()
        self.service = FakeOpenAI(reply=self._sell)

    def _sell(self, request: dict[str, Any]) -> str:
        self._never.wait(0.06)
        return f"the answer to {question_of(request)}"

    @property
    def sold(self) -> Counter[str]:
        """How often each question was answered, or begun to be."""
        return Counter(question_of(request) for _, request in list(self.service.keyed_calls))

    @property
    def idempotency_keys(self) -> dict[str, set[str]]:
        """The keys under which each question was asked."""
        found: dict[str, set[str]] = {}
        for key, request in list(self.service.keyed_calls):
            found.setdefault(question_of(request), set()).add(key)
        return found


def question_of(request: dict[str, Any]) -> str:
    return str(request["messages"][-1]["content"])


def members_with_partitions(broker: ApacheBroker, group: str) -> int:
    admin = broker.clients().admin()
    try:
        return sum(1 for member in admin.members(group) if member.partitions)
    finally:
        admin.close()


@pytest.mark.chaos
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_kills_in_mid_call_buy_again_only_what_was_in_flight(
    apache_kafka: ApacheBroker, unique: Callable[[str], str], tmp_path: Path, guarantee: str
) -> None:
    seeded = random.Random(f"{SEED} {guarantee}")
    moments = sorted(seeded.sample(range(60, QUESTIONS - 150, 30), KILLS))
    name, source, target = unique("shop"), unique("in"), unique("out")
    clients = apache_kafka.clients()
    make_topic(clients, source, PARTITIONS)
    make_topic(clients, target, PARTITIONS)
    shop = Shop()
    with shop.service, ExitStack() as stack:
        (tmp_path / "counted.py").write_text(COUNTED, encoding="utf-8")
        (tmp_path / "topology.yaml").write_text(
            TOPOLOGY.format(name=name, source=source, target=target, guarantee=guarantee, concurrency=CONCURRENCY,
                            url=shop.service.base_url),
            encoding="utf-8",
        )  # fmt: skip

        def start() -> Program:
            arguments = ("topology", "run", "topology.yaml", "--bootstrap-servers", apache_kafka.bootstrap_servers)
            return stack.enter_context(sage(tmp_path, *arguments, environ={"OPENAI_API_KEY": "sk-test"}))

        workers = [start(), start()]
        group = f"{name}.generate"
        wait_until(lambda: members_with_partitions(apache_kafka, group) == 2, timeout=60, what="both have partitions")
        questions = ({"id": n, "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(QUESTIONS))
        fill(clients, source, questions, keyed_by="id")
        for moment in moments:
            wait_until(lambda: shop.sold.total() >= moment, timeout=60, what=f"{moment} calls are made")  # noqa: B023
            workers[victim := seeded.randrange(2)].kill()
            assert len(shop.sold) < QUESTIONS, f"killed too late to prove anything ({moment}, worker {victim})"
            workers[victim] = start()
        wait_until(
            lambda: total_lag(clients, group, source, PARTITIONS) == 0, timeout=120, what="all of it is committed"
        )
        for worker in workers:
            worker.wait_for("runs; Ctrl-C", timeout=60)  # the last one to be started may not even listen to signals yet
            worker.process.send_signal(signal.SIGTERM)
        assert [worker.wait(40) for worker in workers] == [0, 0], workers[0].output + workers[1].output
        tries = (tmp_path / "tries.txt").read_text(encoding="utf-8").splitlines()

    found = Counter((value["id"], value["answer"]) for value in values_of(everything(clients, target)))
    assert set(found) == {(n, f"the answer to question {n}") for n in range(QUESTIONS)}
    if guarantee == "exactly_once":
        assert set(found.values()) == {1}
    assert shop.sold.total() <= QUESTIONS + KILLS * CONCURRENCY, (moments, shop.sold.most_common(30))
    assert all(len(keys) == 1 for keys in shop.idempotency_keys.values()), "a repeated call shows the same key"
    assert len(set.union(*shop.idempotency_keys.values())) == QUESTIONS, "and each question has its own"
    assert len(tries) > shop.sold.total(), "some tries found their answers in the journal, so this proves something"
