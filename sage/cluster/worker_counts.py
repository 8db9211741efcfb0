"""What workers have done for a topology since a moment, by step."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from sage.cluster.cluster_view import ClusterView, SeenWorker
from sage.cluster.names import ControlTopics
from sage.cluster.status import DEAD_AFTER, TopologyStatus
from sage.ports import KafkaClients
from sage.runtime.runs.counters import Numbers

SETTLED: Final = 2.5
BEATS: Final = 2
"""Seconds, and beats, after which a worker has seen twice that its numbers stand still, and said them."""

Life = tuple[str, str, int]
"""Worker, stage, and when it was started there: numbers begin anew with each."""

_NOTHING: Final[Numbers] = (0, 0, 0, 0, 0)


class WorkerCounts:
    """Adds up what the workers say of one topology from its making on. One thread calls it.

    What an actor did between its last word and its sudden end is not known to anybody; what was said before this was
    made may be some seconds old, where records come all the time.

    Raises:
        NotFound: no worker has run here.
        Unreachable, Unauthorized: the brokers.
    """

    def __init__(self, clients: KafkaClients, topics: ControlTopics, topology: str) -> None:
        self._topology = topology
        self._said: dict[Life, Mapping[str, Numbers]] = {}
        self._view = ClusterView(clients, topics, self._note)
        self._view.read_to_end()
        self._before = dict(self._said)

    def _note(self, word: TopologyStatus) -> None:
        if word.topology == self._topology:
            self._said.update({(word.worker, each.stage, each.since): each.steps for each in word.stages if each.since})

    def read(self) -> None:
        """Hear what has been said by now. Raises Unreachable."""
        self._view.read_to_end()

    def wait(self) -> tuple[str, ...]:
        """Wait until all who work on it have said what they did, some seconds; those who live and did not.

        Raises:
            Unreachable: the brokers are away.
        """
        self.read()
        began = time.monotonic()
        beats = {name: seen.status for name, seen in self._hosts().items()}
        left = dict.fromkeys(beats, BEATS)
        while True:
            self._view.poll(0.1)
            hosts, passed = self._hosts(), time.monotonic() - began
            for name in left.keys() & hosts.keys():
                if hosts[name].status is not beats[name]:
                    beats[name] = hosts[name].status
                    left[name] -= 1
            silent = tuple(sorted(name for name in left.keys() & hosts.keys() if left[name] > 0))
            if (not silent and passed >= SETTLED) or passed > DEAD_AFTER:
                return silent

    def _hosts(self) -> dict[str, SeenWorker]:
        return {name: seen for name, seen in self._view.live.items() if self._topology in seen.topologies}

    def numbers(self) -> dict[str, Numbers]:
        """What has been said so far, less what had been before."""
        found: dict[str, Numbers] = {}
        for life, steps in self._said.items():
            before = self._before.get(life, {})
            for step, numbers in steps.items():
                since = zip(found.get(step, _NOTHING), numbers, before.get(step, _NOTHING), strict=True)
                read, written, retried, skipped, dead = (total + now - then for total, now, then in since)
                found[step] = read, written, retried, skipped, dead
        return found

    def close(self) -> None:
        """Release the reader."""
        self._view.close()
