"""Which stage takes a dead letter by now: the step that gave it up may have been renamed, fused or removed since.

Its retry topic stays all the same, and nobody reads it: a letter that is replayed there is never heard of again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sage.cluster.control_log import ControlLog
from sage.cluster.deploying import moves_between
from sage.cluster.names import DEFAULT_PREFIX, PREFIX_VARIABLE, ControlTopics
from sage.errors import NotFound, Unauthorized
from sage.ports import KafkaClients

logger = logging.getLogger("sage.operations")


class StagesNow:
    """Where letters go of a topology that is deployed.

    Args:
        stages: those of the version that is deployed; ``None`` where none is: then all stay what they were.
        moved: stages of earlier versions -> what they are called now.
        version: the one that is deployed.
    """

    def __init__(self, stages: frozenset[str] | None, moved: Mapping[str, str], version: int = 0) -> None:
        self._stages = stages
        self._moved = moved
        self._version = version

    def of(self, stage: str) -> str | None:
        """The stage that takes what ``stage`` gave up; ``None`` where none does."""
        if self._stages is None or stage in self._stages:
            return stage
        now = self._moved.get(stage)
        return now if now in self._stages else None

    def why_none(self, stage: str) -> str:
        """What to tell of a stage whose letters nobody takes."""
        return (
            f"version {self._version}, which is deployed, has no stage {stage}: it was removed or fused, or renamed "
            "without moved, and nobody reads its retry topic"
        )


ANY = StagesNow(None, {})
"""Of a topology that is not deployed: whoever runs it has the stages that it has."""


def stages_now(clients: KafkaClients, topology: str, topics: ControlTopics | None = None) -> StagesNow:
    """What is deployed says where the letters of ``topology`` go.

    Args:
        topics: the control topics; those that the environment names unless given.
    """
    with _log(clients, topics or ControlTopics(os.environ.get(PREFIX_VARIABLE) or DEFAULT_PREFIX)) as log:
        pointer = None if log is None else log.running.get(topology)
        if log is None or pointer is None or (topology, pointer.version) not in log.deployments:
            return ANY
        now = log.deployment(topology, pointer.version)
        moved: dict[str, str] = {}
        for version in log.versions(topology):  # what the newest says of a name is what it was called last
            between = moves_between(log, topology, version, pointer.version)
            moved |= {stage: between.get(stage, stage) for stage in log.deployment(topology, version).stages}
        return StagesNow(frozenset(now.stages), moved, now.version)


@contextmanager
def _log(clients: KafkaClients, topics: ControlTopics) -> Iterator[ControlLog | None]:
    log: ControlLog | None = None
    try:
        try:
            log = ControlLog(clients, topics)
            log.read_to_end()
        except NotFound:  # nothing was ever deployed here
            yield None
        except Unauthorized as error:
            logger.info("what is deployed can't be seen: %s", error)
            yield None
        else:
            yield log
    finally:
        if log is not None:
            log.close()
