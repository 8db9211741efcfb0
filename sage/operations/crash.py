"""What ``sage demo crash`` does: a worker is killed in mid-work, and everything is counted where it was written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from sage.cluster.names import ControlTopics
from sage.errors import DeadlineExceeded, StageStopped
from sage.model.identity import SAGE_ID
from sage.model.partition import TopicPartition
from sage.operations.cluster import Cluster
from sage.operations.groups import input_lags
from sage.operations.reading import partitions_of, read_to_end
from sage.plan.plan import Plan
from sage.ports import Admin, KafkaClients, RawMessage
from sage.spec.options import Guarantee

NAME: Final = "crash"
TOPOLOGY: Final = "crash.yaml"
QUESTIONS: Final = f"{NAME}-questions"
ANSWERS: Final = f"{NAME}-answers"
ASKING: Final = "generate"
MODEL: Final = "local/smollm2"
PARTITIONS: Final = 4
ASKED: Final = 40
FEWEST: Final = 2 * PARTITIONS
"""With fewer questions the worker that is killed may have none of them left."""
FIRST, SECOND = "worker-1", "worker-2"

COUNTED: Final = tuple(
    ("topics", "tail", topic, "--from-beginning", "-o", "json")
    for topic in (QUESTIONS, ANSWERS, f"{NAME}.{ASKING}.journal")
)
"""What anybody can type, with ``| wc -l``, to count what is in Kafka: each prints a line per committed record."""

CHECKS: Final = (("groups", "list", f"{NAME}."), ("dlq", "list", NAME))
"""And to see that nothing waits and nothing died."""

_PATIENCE: Final = 300.0
_LOOK_EVERY: Final = 0.1
_SOURCE = "  questions:\n    source: file\n    config: {path: questions.txt}\n"
_CONCURRENCY = "concurrency: 4"
_GUARANTEE = "guarantee: at_least_once"
_SINK = "  answers:\n    sink: terminal\n"


def topology_text(starter: str, guarantee: Guarantee) -> str:
    """The starter's topology as one that a cluster hosts: questions and answers are topics, and each worker asks one
    question at a time, so that at most one call is in flight when it is killed.

    Args:
        guarantee: ``exactly_once`` where the brokers can, since at least once an answer that was written and not
            committed at the kill is there twice.

    Raises:
        ValueError: the starter is not what this was written for.
    """
    for part in (_SOURCE, _SINK, _CONCURRENCY, _GUARANTEE, "name: rag-qa"):
        if starter.count(part) != 1:
            raise ValueError(f"the starter's topology has {part!r} {starter.count(part)} times")
    return (
        starter.replace("name: rag-qa", f"name: {NAME}")
        .replace(_CONCURRENCY, "concurrency: 1")
        .replace(_GUARANTEE, f"guarantee: {guarantee}")
        .replace(_SOURCE, f"  questions:\n    source: topic\n    config: {{topic: {QUESTIONS}}}\n")
        .replace(_SINK, f"  answers:\n    sink: topic\n    config: {{topic: {ANSWERS}}}\n")
    )


def kill_at(asked: int) -> int:
    """After how many answers of so many questions the first worker is killed: in the middle of the work."""
    return asked * 17 // 40


def questions_of(golden: str, asked: int = ASKED) -> list[str]:
    """So many questions, from the starter's set of questions with known answers."""
    known = [json.loads(line)["query"] for line in golden.splitlines() if line.strip()]
    return [known[number % len(known)] for number in range(asked)]


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted.

    Attributes:
        asked, answered: questions, and questions with an answer.
        lost: without one.
        twice: answers beyond the first of a question.
        calls: calls that the model server's own log says were started.
        repeated: calls beyond one a question: those that were in flight at the kill.
        from_journal: answers that the dead worker had paid for and not handed on, used again by the other.
        dead: dead letters.
        at_kill: answers that were there when the worker was killed.
        takeover: seconds from the kill until somebody had gone on with the dead worker's partitions.
    """

    asked: int
    answered: int
    lost: int
    twice: int
    calls: int
    repeated: int
    from_journal: int
    dead: int
    at_kill: int
    takeover: float

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)

    def __str__(self) -> str:
        in_flight = f" + {self.repeated} in flight at the kill" if self.repeated else ""
        return (
            f"asked {self.asked} | answered {self.answered} | lost {self.lost} | twice {self.twice} | "
            f"model calls {self.calls} = {self.asked}{in_flight} | from the journal {self.from_journal}"
        )


class Scene:
    """The topics of a running crash.

    Args:
        clients: of the folder's broker.
        plan: what was deployed.
        calls: how many calls the model server says were started so far.
    """

    def __init__(self, clients: KafkaClients, plan: Plan, calls: Callable[[], int]) -> None:
        self._clients = clients
        self._stages = [stage for stage in plan.stages if stage.group]
        self._asking = next(stage for stage in self._stages if any(step.name == ASKING for step in stage.steps))
        self._input = self._asking.inputs[0].topic
        self._admin: Admin = clients.admin()
        self._calls = calls
        self._calls_before = calls()
        self._killed_at = 0.0
        self._at_kill = 0
        self._places: list[TopicPartition] = []
        self._committed: dict[TopicPartition, int] = {}
        self._from_journal = 0
        self._takeover = 0.0

    def ask(self, questions: list[str]) -> None:
        """Write the questions, spread over the partitions."""
        producer = self._clients.producer()
        for number, question in enumerate(questions):
            producer.produce(QUESTIONS, json.dumps(question).encode(), partition=number % PARTITIONS)
        left = producer.flush(30)
        producer.close()
        if left:
            raise DeadlineExceeded(f"{left} questions were not taken within 30 s", where=QUESTIONS)

    def wait_for_answers(self, count: int, show: Callable[[int], None]) -> None:
        """Wait until so many answers are there.

        Raises:
            DeadlineExceeded: they don't come.
            StageStopped: questions die instead of being answered.
        """
        deadline = time.monotonic() + _PATIENCE
        while (found := len(self._ids(ANSWERS))) < count:
            show(found)
            if dead := len(self._read(f"{NAME}.dlq")):
                raise StageStopped(f"{dead} questions died; `sage dlq list {NAME}` says why", where=NAME)
            _pause(deadline, f"{found} of {count} answers")
        show(found)

    def owned_by(self, worker: str) -> frozenset[int]:
        """The partitions that a worker asks the model for, as it says; none where it asks for none yet."""
        with Cluster(self._clients, ControlTopics()) as cluster:
            for row in cluster.stages(NAME):
                if row.stage == self._asking.name:
                    mine = [place for place, owner in row.partitions.items() if owner == worker]
                    return frozenset(int(place.rpartition(":")[2]) for place in mine)
        return frozenset()

    @property
    def at_kill(self) -> int:
        """Answers that were there when the worker was killed."""
        return self._at_kill

    def killed(self, owned: frozenset[int]) -> None:
        """Take stock right after the kill; ``owned``: the partitions that the dead worker asked the model for."""
        self._killed_at = time.monotonic()
        self._at_kill = len(self._ids(ANSWERS))
        self._places = [TopicPartition(self._input, number) for number in sorted(owned)]
        self._committed = self._commits()
        self._from_journal = len(self._ids(self._asking.journal_topic, owned) & self._unfinished())

    def _commits(self) -> dict[TopicPartition, int]:
        """Up to where the dead worker's partitions are done."""
        starts = self._admin.start_offsets(self._places)
        commits = self._admin.commits(self._asking.group, self._places)
        return {where: max(starts[where], commits[where].offset or 0) for where in self._places}

    def _unfinished(self) -> set[str]:
        """Questions of the dead worker's partitions that are not done: they are read again."""
        ends = self._admin.end_offsets(self._places)
        return {_id(message) for message in read_to_end(self._clients, self._committed, ends)}

    def wait_for_takeover(self, show: Callable[[str], None]) -> float:
        """Wait until somebody goes on where the dead worker was; seconds since the kill."""
        deadline = time.monotonic() + _PATIENCE
        while self._unfinished() and self._commits() == self._committed:
            show(f"{FIRST} is dead, its questions wait")
            _pause(deadline, f"{FIRST}'s partitions were not taken over")
        self._takeover = time.monotonic() - self._killed_at
        return self._takeover

    def wait_for_the_end(self, show: Callable[[int], None]) -> None:
        """Wait until nothing is on its way any more."""
        deadline = time.monotonic() + _PATIENCE
        read = {stage.group: [*(each.topic for each in stage.inputs), stage.retry_topic] for stage in self._stages}
        while lag := sum(input_lags(self._admin, read).values()):
            show(len(self._ids(ANSWERS)))
            _pause(deadline, f"{lag} records are still on their way")

    def tally(self) -> Tally:
        """Count everything, from the topics and from the model server's log."""
        answers = [_id(message) for message in self._read(ANSWERS)]
        asked, answered = len(self._read(QUESTIONS)), len(set(answers))
        calls = self._calls() - self._calls_before
        return Tally(
            asked, answered, asked - answered, len(answers) - answered, calls, max(0, calls - asked),
            self._from_journal, len(self._read(f"{NAME}.dlq")), self._at_kill, round(self._takeover, 1),
        )  # fmt: skip

    def close(self) -> None:
        """Release the client."""
        self._admin.close()

    def _ids(self, topic: str, partitions: frozenset[int] | None = None) -> set[str]:
        return {_id(message) for message in self._read(topic, partitions)}

    def _read(self, topic: str, partitions: frozenset[int] | None = None) -> list[RawMessage]:
        if topic not in self._admin.describe([topic]):
            return []
        places = [p for p in partitions_of(self._admin, topic) if partitions is None or p.partition in partitions]
        ends = self._admin.end_offsets(places)
        return list(read_to_end(self._clients, self._admin.start_offsets(places), ends))


def start_worker(name: str, folder: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """``sage worker run --id NAME``, its output in a file of the folder."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sage", "worker", "run", "--id", name],
            cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def _id(message: RawMessage) -> str:
    headers = dict(message.headers() or ())
    return (headers.get(SAGE_ID) or b"").decode() or f"{message.topic()}-{message.partition()}@{message.offset()}"


def _pause(deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise DeadlineExceeded(f"{what} after {_PATIENCE:.0f} s; see the workers' logs in the folder", where=NAME)
    time.sleep(_LOOK_EVERY)
