"""A topology under attack: workers in processes of their own, records coming in, and the reckoning at the end."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import orjson

from sage.errors import TransientFailure, Unreachable
from sage.ports import Producer, RawMessage
from tests.chaos.worker import (
    AT_WORK,
    COUNTING,
    FALTERING,
    PARTITIONS,
    POISON,
    environment,
    give_numbers,
    numbers_file,
    rounds_of,
)
from tests.support.brokers import ApacheBroker
from tests.support.records import everything, make_topic, total_lag, values_of
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
KEYS = 50
UNORDERED = {"none", "timer", "async-timer"}
"""Kinds that promise no order: of timers each is due by itself."""
HANDFUL = 20
"""Records that are written at once."""
TRAILED = 5
"""Missing records that are looked for in every topic."""
T = TypeVar("T")


@dataclass
class Reckoning:
    """What came out.

    Attributes:
        missing: ids that are neither in the output nor among the dead letters.
        doubled: outputs and dead letters beyond one for each id.
        disordered: outputs that came after a later one of their key, or of their partition where that order is
            promised; first occurrences only.
        wrong_counts: keys whose last count is not the number of their records, as (key, counted, true).
        lagging: what a stranger still sums up as lag, by group and topic.
        gone: workers that ended though nobody told them to.
        buried: ids of dead letters of records that nothing is wrong with.
        untrue: outputs of timers that were not due yet, of records that went around another number of times, or with
            another record's answer.
        trails: the places (topic-partition@offset) of the first records that are missing, so far as they came.
    """

    missing: list[int]
    doubled: int
    disordered: int
    wrong_counts: list[tuple[str, int, int]] = field(default_factory=list)
    lagging: dict[str, int] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)
    buried: list[int] = field(default_factory=list)
    untrue: list[Any] = field(default_factory=list)
    trails: dict[int, list[str]] = field(default_factory=dict)


class Scenario:
    """Starts workers, feeds, and reads what came out as a reader of committed data. ``tests.chaos.blows`` attacks it.

    Args:
        broker: Apache Kafka.
        name: of the topology and its topics.
        kind, guarantee: as of ``tests.chaos.worker``.
        folder: for logs and for the workers' state, one folder each.
        seed: of every choice made here.
        records: the least that are fed; feeding goes on until the reckoning, so that no blow falls into nothing.
    """

    def __init__(
        self, broker: ApacheBroker, name: str, kind: str, guarantee: str, folder: Path, seed: int, *, workers: int = 2,
        records: int = 600, replicas: int = 1,
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.seed = seed
        self.broker = broker
        self.name = name
        self.kind = kind
        self.guarantee = guarantee
        self._folder = folder
        self._replicas = replicas
        self._least = records
        self._records = 0
        self._clients = broker.clients()
        self._ended = threading.Event()
        self._enough = threading.Event()
        self._feeding_failed: list[object] = []
        for topic in (f"{name}-in", f"{name}-out"):
            make_topic(self._clients, topic, PARTITIONS, replicas=replicas)
        self._started = 0
        self.workers = [self._start() for _ in range(workers)]
        self._feeder = threading.Thread(target=self._feed, daemon=True)

    def __str__(self) -> str:
        return f"{self.kind}, {self.guarantee}, seed {self.seed}"

    # ------------------------------------------------------------------------------------ workers

    def _start(self, folder: int | None = None) -> subprocess.Popen[bytes]:
        """A worker in a folder of its own; in that of one that went where ``folder`` names it."""
        number = self._started if folder is None else folder
        self._started = max(self._started, number + 1)
        with (self._folder / f"{self.name}-{number}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.worker", self.broker.bootstrap_servers, self.name, self.kind,
                 self.guarantee, str(self._folder / f"{self.name}-{number}"), str(self._replicas)],
                stdout=log, stderr=subprocess.STDOUT, cwd=ROOT,
            )  # fmt: skip

    def join(self) -> None:
        """One worker more."""
        self.workers.append(self._start())

    def kill(self, number: int) -> None:
        """kill -9, and a new one in its place."""
        self.workers[number].kill()
        self.workers[number].wait(10)
        self.workers[number] = self._start(number)

    def terminate(self, number: int, *, replace: bool = True) -> None:
        """SIGTERM: it drains and exits 0, unless it was only starting; a new one takes its place if that is wanted."""
        leaving = self.workers[number]
        was_at_work = self._is_at_work(leaving)
        leaving.terminate()
        wait_until(lambda: leaving.poll() is not None, timeout=45, what=f"{self} drains\n{self.logs()}")
        assert leaving.returncode == 0 or not was_at_work, f"{self}: a drain ended with {leaving.returncode}"
        if replace:
            self.workers[number] = self._start(number)
        else:
            self.workers.remove(leaving)

    def freeze(self, number: int, seconds: float) -> None:
        """SIGSTOP, for longer than the session to be of interest, then SIGCONT."""
        self.workers[number].send_signal(signal.SIGSTOP)
        threading.Event().wait(seconds)
        self.workers[number].send_signal(signal.SIGCONT)

    def _is_at_work(self, worker: subprocess.Popen[bytes]) -> bool:
        """Whether it has said that it is."""
        return any(AT_WORK.format(worker.pid) in path.read_text(errors="replace") for path in self._logs())

    def turn_clocks(self) -> None:
        """Every worker's wall clock jumps."""
        for worker in self.workers:
            worker.send_signal(signal.SIGUSR2)

    def pause(self, low: float, high: float) -> None:
        """Let work go on for a random while."""
        threading.Event().wait(self.random.uniform(low, high))

    def close(self) -> None:
        """End the workers and the feeder."""
        self._ended.set()
        for worker in self.workers:
            worker.kill()
            worker.wait(10)

    def logs(self, most: int = 3_000) -> str:
        """The end of what the workers wrote, so many characters of each."""
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-most:]}" for path in self._logs())

    def _logs(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self.name}-*.log"))

    # ------------------------------------------------------------------------------------ records

    @property
    def records(self) -> int:
        """How many have been fed so far."""
        return self._records

    def feed(self) -> None:
        """Begin to write records, at a pace that lets the attacks fall into the middle."""
        self._feeder.start()

    def _feed(self) -> None:
        producer = self._clients.producer()
        while not self._ended.is_set() and not (self._enough.is_set() and self._records >= self._least):
            self._feed_some(producer)
            if self._records < self._least:
                self._ended.wait(0.1)
            else:
                self._enough.wait(0.2)
        if not self._ended.is_set():
            if left := producer.flush(120):
                self._feeding_failed.append(f"{left} records were not taken")
            self._feeding_failed += producer.take_failures()
        producer.close()

    def _feed_some(self, producer: Producer) -> None:
        end = self._records + HANDFUL
        if self.kind == "source":
            give_numbers(numbers_file(self._folder, self.name), end)
        else:
            for number in range(self._records, end):
                key = f"k{number % KEYS}"
                producer.produce(f"{self.name}-in", orjson.dumps({"id": number, "k": key}), key.encode())
            producer.flush(60)
        self._records = end

    def begun(self) -> None:
        """Wait until outputs come, and every worker has started: a blow at one that has not strikes nothing."""
        wait_until(self._outputs, timeout=90, what=f"{self} gives outputs\n{self.logs()}")
        wait_until(lambda: all(map(self._is_at_work, self.workers)), timeout=60, what=f"{self}: all have started")

    def at_work(self) -> None:
        """Wait until records are under way, which they are again and again while they are fed."""

        def under_way() -> bool:
            assert self._feeder.is_alive(), f"{self}: nothing is fed any more: a blow would fall into nothing"
            return any(self._lags().values())

        wait_until(under_way, timeout=60, what=f"{self}: records are under way")

    def reckon(self, timeout: float = 90.0) -> Reckoning:
        """End feeding, wait for all records, a moment longer for doubles, and count."""
        self._enough.set()
        self._feeder.join(timeout)
        assert not self._feeder.is_alive(), f"{self}: the feeder is stuck"
        assert not self._feeding_failed, f"{self}: {self._feeding_failed}"

        def all_there() -> bool:
            return len({value["id"] for value in (*self._outputs(), *self._dead())}) >= self._records

        try:
            wait_until(all_there, timeout=timeout, what="all records are out")
        except AssertionError:
            self._say_where_they_stand()
            print(self.logs(20_000), file=sys.stderr)
        self._come_to_rest()
        found = self._count(self._messages(f"{self.name}-out"), self._dead())
        found.trails = self._trails(found.missing[:TRAILED])
        found.lagging = self._lagging()
        found.gone = [worker.returncode for worker in self.workers if worker.poll() is not None]
        return found

    def _say_where_they_stand(self) -> None:
        """Have every worker write into its log where each of its threads is."""
        for worker in self.workers:
            worker.send_signal(signal.SIGUSR1)
        threading.Event().wait(1.0)

    def _come_to_rest(self) -> None:
        """Until nothing more comes: whoever was frozen or fenced has said its last word."""
        seen, since = -1, time.monotonic()

        def still() -> bool:
            nonlocal seen, since
            now = len(self._outputs())
            if now != seen:
                seen, since = now, time.monotonic()
            return time.monotonic() - since > 2.0

        wait_until(still, timeout=60, what="the outputs come to rest")

    def _trails(self, numbers: list[int]) -> dict[int, list[str]]:
        """Where each of these is found, in the order of the stages."""
        topics = dict.fromkeys(topic for _, topic in self._read) if numbers else ()
        trails: dict[int, list[str]] = {number: [] for number in numbers}
        for topic in topics:
            messages = self._messages(topic)
            for message, value in zip(messages, values_of(messages), strict=True):
                if isinstance(value, dict) and value.get("id") in trails:
                    trails[value["id"]].append(f"{topic}-{message.partition()}@{message.offset()}")
        return trails

    def _lagging(self) -> dict[str, int]:
        """What is not 0 after some seconds, though all that was written has been processed."""
        try:
            wait_until(lambda: not any(self._lags().values()), timeout=30, what="the lag is 0")
        except AssertionError:
            return {place: lag for place, lag in self._lags().items() if lag}
        return {}

    def _lags(self) -> dict[str, int]:
        """What a stranger sums up as lag, by group and topic."""
        return {
            f"{group} {topic}": self._seen(partial(total_lag, self._clients, group, topic, PARTITIONS))
            for group, topic in self._read
        }

    @cached_property
    def _read(self) -> list[tuple[str, str]]:
        """Which group reads which topic."""
        plan = environment(self.broker.bootstrap_servers, self.name, self.kind, self.guarantee, "unused").plan()
        return [(stage.group, i.topic) for stage in plan.stages for i in stage.inputs]

    def _outputs(self) -> list[Any]:
        return values_of(self._messages(f"{self.name}-out"))

    def _dead(self) -> list[Any]:
        return values_of(self._messages(f"{self.name}.dlq"))

    def _messages(self, topic: str) -> list[RawMessage]:
        return self._seen(lambda: everything(self._clients, topic))

    def _seen(self, look: Callable[[], T]) -> T:
        """What ``look`` gives: it is taken again where a broker goes in the middle of it."""

        def found() -> tuple[T] | None:
            try:
                return (look(),)
            except (TransientFailure, Unreachable):
                return None

        answer = wait_until(found, timeout=120, what=f"{self}: the brokers answer")
        assert answer is not None
        return answer[0]

    def _count(self, messages: list[RawMessage], dead: list[Any]) -> Reckoning:
        outputs = values_of(messages)
        times = Counter(value["id"] for value in (*outputs, *dead))
        missing = [number for number in range(self._records) if number not in times]
        found = Reckoning(missing, sum(times.values()) - len(times), self._disordered(messages))
        poison = {number for number in range(self._records) if self.kind in FALTERING and number % POISON == 0}
        found.buried = sorted({value["id"] for value in dead} - poison)
        found.untrue = [
            value for value in outputs
            if value.get("early_ms", 0) > 0 or value.get("rounds", rounds_of(value["id"])) != rounds_of(value["id"])
            or not value.get("asked", True)
        ]  # fmt: skip
        if self.kind in COUNTING:
            true = Counter(f"k{number % KEYS}" for number in range(self._records))
            counted: dict[str, int] = {}
            for value in outputs:
                counted[value["k"]] = max(value["n"], counted.get(value["k"], 0))
            found.wrong_counts = [(k, counted.get(k, 0), n) for k, n in true.items() if counted.get(k, 0) != n]
        return found

    def _disordered(self, messages: list[RawMessage]) -> int:
        if self.kind in UNORDERED:
            return 0
        disordered, last, met = 0, dict[Any, int](), set[int]()
        for message, value in zip(messages, values_of(messages), strict=True):
            if value["id"] in met:
                continue
            met.add(value["id"])
            lane = message.partition() if self.kind == "partition" else value["k"]
            disordered += value["id"] < last.get(lane, -1)
            last[lane] = max(value["id"], last.get(lane, -1))
        return disordered


def judge(found: Reckoning, scenario: Scenario) -> None:
    """Fail where more was lost or doubled than the guarantee allows."""
    told = f"{scenario}: {found}"
    assert not found.missing, told
    assert not found.buried, told
    assert not found.disordered, told
    assert not found.untrue, told
    assert not found.lagging, told
    assert not found.gone, f"{told}\n{scenario.logs()}"
    if scenario.guarantee == "exactly_once":
        assert not found.doubled, told
        assert not found.wrong_counts, told
    else:
        assert all(counted >= true for _, counted, true in found.wrong_counts), told
