"""A data set through an isolated topology, over Kafka, to the end; then its outputs paired with its questions."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import orjson

from sage.errors import DeadlineExceeded, SageError
from sage.model.partition import TopicPartition
from sage.operations.dead_letters import letter_of
from sage.operations.evaluation.dataset import Dataset, Example
from sage.operations.evaluation.scoring import Evaluation, Scorer, results_of
from sage.operations.feeding import Feed, feed, make_input
from sage.operations.isolation import Isolated, output_topics
from sage.operations.reading import partitions_of, read_to_end
from sage.ports import Admin, KafkaClients, RawMessage

if TYPE_CHECKING:
    from sage.environments.local import LocalEnvironment

logger = logging.getLogger("sage.operations")

LINE_HEADER: Final = "sage.dataset.line"
"""The header by which an output, or a dead letter, is known to come of a question: its line, as decimal text."""

_STOP: Final = 5.0
"""Seconds for steps to finish what they are at when a run is given up; what they do is thrown away."""

_LOOK_EVERY: Final = 0.5

Progress = Callable[[int, int], None]


def evaluate(
    environment: LocalEnvironment,
    run: Isolated,
    dataset: Dataset,
    *,
    topology: str,
    version: int = 0,
    as_text: bool = False,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run the data set, wait until each question has its output or dead letter, and score what came out.

    The environment is stopped at the end; what it left on the brokers is the caller's to remove.

    Args:
        environment: of the isolated topology.
        run: that.
        dataset: the questions.
        topology, version: the name of the original, and which version of it, for the result.
        as_text: give the questions' text alone, as a file of lines does, instead of whole objects.
        timeout: seconds that the run may take.
        progress: told how many questions are done, of how many.

    Raises:
        DeadlineExceeded: the time was over.
        SageError: a step stopped.
    """
    clients = environment.clients
    plan = environment.plan()
    outputs, dead = output_topics(plan), plan.dead_letter_topic
    replicas = run.topology.topics.replication_factor
    make_input(clients, run.input_topic, run.partitions, replicas)
    feed(clients, run.input_topic, (_record(example, run, as_text) for example in dataset.examples))
    try:
        with _telling(clients, [*outputs, dead], len(dataset.examples), progress):
            report = environment.run_once(timeout)
    finally:
        environment.stop(_STOP)
    if not report.complete:
        waiting = f"; waiting for {report.waiting_for}" if report.waiting_for else ""
        raise DeadlineExceeded(
            f"not every question was done after {report.seconds:.1f} s{waiting}; give it a longer --timeout",
            where=topology,
        )
    found = results_of(dataset, Scorer(topology), _outputs(clients, outputs), _deaths(clients, dead))
    return Evaluation(topology, version, dataset.path, dataset.digest, report.seconds, found)


def _record(example: Example, run: Isolated, as_text: bool) -> Feed:
    headers = [(LINE_HEADER, str(example.line).encode())]
    if run.input_format != "json":
        return Feed(example.query.encode(), None, headers)
    return Feed(orjson.dumps(example.query if as_text else example.record), None, headers)


def _outputs(clients: KafkaClients, topics: Sequence[str]) -> dict[int, list[Any]]:
    """The values that came of each line, in the order of the topics; a record that was written twice is there twice."""
    found: dict[int, list[Any]] = {}
    for topic in topics:
        for message in _read(clients, topic):
            line = _line(message)
            if line is not None:
                found.setdefault(line, []).append(_value(message.value()))
    return found


def _deaths(clients: KafkaClients, topic: str) -> dict[int, str]:
    """Why questions died, by their line; where several records of one did, the first."""
    found: dict[int, str] = {}
    for message in _read(clients, topic):
        line = _line(message)
        if line is not None:
            letter = letter_of(message)
            found.setdefault(line, f"step {letter.step}: {letter.reason}")
    return found


def _read(clients: KafkaClients, topic: str) -> list[RawMessage]:
    admin = clients.admin()
    try:
        places = partitions_of(admin, topic)
        starts, ends = admin.start_offsets(places), admin.end_offsets(places)
    finally:
        admin.close()
    return sorted(read_to_end(clients, starts, ends), key=lambda one: (one.partition(), one.offset()))


def _line(message: RawMessage) -> int | None:
    headers: Mapping[str, bytes | None] = dict(message.headers() or ())
    text = (headers.get(LINE_HEADER) or b"").decode(errors="replace")
    return int(text) if text.isdecimal() else None


def _value(data: bytes | None) -> Any:
    try:
        return None if data is None else json.loads(data)
    except ValueError:  # a step that writes bytes: no record with an answer
        return data


@contextmanager
def _telling(clients: KafkaClients, topics: Sequence[str], total: int, progress: Progress | None) -> Iterator[None]:
    """Tell ``progress`` how much has come out, from a thread, while the block runs."""
    if progress is None:
        yield
        return
    done = threading.Event()
    admin = clients.admin()

    def tell() -> None:
        while not done.wait(_LOOK_EVERY):
            try:
                progress(min(total, _written(admin, topics)), total)
            except SageError as error:  # the run itself will say it, where it matters
                logger.debug("no progress to tell: %s", error)

    teller = threading.Thread(target=tell, name="sage-progress", daemon=True)
    teller.start()
    try:
        yield
        progress(total, total)
    finally:
        done.set()
        teller.join(10)
        admin.close()


def _written(admin: Admin, topics: Sequence[str]) -> int:
    infos = admin.describe(topics)
    places = [TopicPartition(info.name, number) for info in infos.values() for number in range(info.partitions)]
    return sum(admin.end_offsets(places).values())
