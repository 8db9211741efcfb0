"""What ``sage topology logs`` does: lines that workers logged, wherever they ran, read from Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sage.cluster.log_records import LogReader, LogRecord
from sage.cluster.names import ControlTopics
from sage.operations.log_names import lines_there, refuse_unknown
from sage.ports import KafkaClients

LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_WAIT: Final = 0.2


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which lines are wanted; what is empty wants all.

    Attributes:
        level: this one and what is worse.
    """

    topology: str = ""
    step: str = ""
    worker: str = ""
    level: str = ""

    def wants(self, line: LogRecord) -> bool:
        """Whether a line is wanted."""
        return (
            self.topology in {"", line.topology}
            and self.step in {"", line.step}
            and self.worker in {"", line.worker}
            and _rank(line.level) >= _rank(self.level)
        )


def read_logs(
    clients: KafkaClients,
    topics: ControlTopics,
    wanted: LogFilter,
    *,
    count: int | None = 100,
    since: float | None = None,
    forever: bool = False,
) -> Iterator[LogRecord]:
    """The last ``count`` lines (``None``: all) by time; with ``forever`` then those to come.

    Args:
        since: seconds ago; lines before are left out.

    Raises:
        NotFound: no worker has run on these brokers; or nobody knows the topology, step or worker that is wanted.
        DeadlineExceeded: the topic could not be read to its end.
    """
    reader = LogReader(clients, topics, since=0 if since is None else max(0, int((time.time() - since) * 1000)))
    try:
        found = _there(reader, wanted, count)
        if not found:
            refuse_unknown(clients, topics, wanted.topology, wanted.step, wanted.worker)
        yield from found
        while forever:
            yield from (line for line in reader.poll(_WAIT) if wanted.wants(line))
    finally:
        reader.close()


def _there(reader: LogReader, wanted: LogFilter, count: int | None) -> list[LogRecord]:
    """What was there when the reader began, by time: partitions come one after the other."""
    kept: list[LogRecord] = []
    for line in lines_there(reader):
        if wanted.wants(line):
            kept.append(line)
            if count is not None and len(kept) > 4 * count + 1_000:
                kept = _last(kept, count)
    return _last(kept, count)


def _last(lines: list[LogRecord], count: int | None) -> list[LogRecord]:
    ordered = sorted(lines, key=lambda line: line.time)
    return ordered if count is None else ordered[max(0, len(ordered) - count) :]


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else 0
