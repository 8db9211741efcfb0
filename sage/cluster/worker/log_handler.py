"""What a worker logs, written to the logs topic; it never holds up or fails who logs."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from sage.cluster.log_records import LogRecord
from sage.cluster.names import ControlTopics
from sage.errors import SageError
from sage.model.secrets import HIDDEN, hide_secrets
from sage.ports import KafkaClients

ROOM: Final = 5_000
"""Lines that may wait to be sent; the oldest go when there are more, and how many is said."""

LONGEST: Final = 20_000
"""Characters of a message or a traceback that are kept."""

LEAST_SECRET: Final = 4
"""Characters of a secret that is masked: shorter ones are found in every other word."""

_STEPS = "sage.step."
_THREADS = "sage-"
_OWN_THREAD = "worker-log"


class TopicHandler(logging.Handler):
    """A handler with a thread of its own.

    Args:
        worker: this worker's name.
        secrets: texts that must not be shown, wherever they come up.
    """

    def __init__(self, clients: KafkaClients, topics: ControlTopics, worker: str, secrets: Iterable[str] = ()) -> None:
        super().__init__(logging.INFO)
        self._clients = clients
        self._topic = topics.logs
        self._worker = worker
        self._secrets = sorted({text for text in secrets if len(text) >= LEAST_SECRET}, key=len, reverse=True)
        self._waiting: deque[LogRecord] = deque()
        self._lost = 0
        self._came = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=_OWN_THREAD, daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a line into the queue."""
        if record.threadName == _OWN_THREAD:
            return  # what sending itself logs would never end
        try:
            topology, step = _whose(record)
            trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
            line = LogRecord(
                int(record.created * 1000), record.levelname.lower(), self._worker, topology, step, record.name,
                self._masked(record.getMessage())[:LONGEST], self._masked(trace)[-LONGEST:],
            )  # fmt: skip
        except Exception:
            self.handleError(record)
            return
        while len(self._waiting) >= ROOM:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(line)
        self._came.set()

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return hide_secrets(text)

    def _run(self) -> None:
        try:
            producer = self._clients.producer()
        except SageError:
            return  # logs must not stop a worker; standard error has them too
        while not self._closing.is_set() or self._waiting:
            self._came.wait(0.5)
            self._came.clear()
            while self._waiting:
                line = self._waiting.popleft()
                try:
                    producer.produce(self._topic, line.encode(), line.key, on_delivery=lambda *_: None)
                except (SageError, BufferError):  # too long, or the brokers are away for long
                    self._lost += 1
            with suppress(SageError):  # who is refused is told by what the worker itself asks the brokers
                producer.poll(0)
            if self._closing.is_set():
                break
        producer.close(2.0)

    @property
    def lost(self) -> int:
        """Lines that had no room, or could not be sent."""
        return self._lost

    def close(self) -> None:
        """Send what waits, for a moment."""
        self._closing.set()
        self._came.set()
        self._thread.join(5.0)
        super().close()


def about(topology: str, step: str = "") -> dict[str, str]:
    """The ``extra`` of a line that is logged elsewhere than on a thread of the topology it is about."""
    return {"topology": topology, "step": step}


def _whose(record: logging.LogRecord) -> tuple[str, str]:
    """Topology and step: as the line says, else told by a step's logger, else by the thread of a unit."""
    said = getattr(record, "topology", None)
    if isinstance(said, str):
        return said, str(getattr(record, "step", ""))
    if record.name.startswith(_STEPS):
        topology, _, step = record.name[len(_STEPS) :].partition(".")
        return topology, step
    thread = record.threadName or ""
    if thread.startswith(_THREADS) and "." in thread:
        topology, _, step = thread[len(_THREADS) :].partition(".")
        return topology, "" if step in {"loop", "check", "end", "offsets"} else step
    return "", ""
