"""Asynchronous stages: many records at work at once, in lanes by key, inside a bounded window.

All state lives on the event loop; the consumer thread hands batches over and asks questions through the
bridge. A record is done when the broker has answered for all that it became; offsets follow the contiguous
prefix of done records.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence

from sage.errors import SageError
from sage.model.partition import TopicPartition
from sage.ports import Producer, RawMessage
from sage.runtime.bridge import Bridge
from sage.runtime.flights import Flights
from sage.runtime.stage_context import StageSetting


class AsyncTask:
    """The consumer thread's side of an asynchronous stage; ``Flights`` is the loop's side."""

    def __init__(self, setting: StageSetting, producer: Producer, bridge: Bridge) -> None:
        self.steps = setting.steps
        self._setting = setting
        self._producer = producer
        self._bridge = bridge
        self._accepted = 0
        self._accepted_bytes = 0
        self._unsettled = False
        self._flights = Flights(setting, producer)
        self._window = self._flights.window

    @property
    def window_size(self) -> int:
        """Records under way at most."""
        return self._window.size

    def open(self) -> None:
        """Open the step, on the loop."""
        self._bridge.call(self._flights.open())

    def room(self) -> int:
        """Records that fit the window now, by number and by bytes."""
        self._raise_failure()
        if self._accepted_bytes - self._flights.released_bytes >= self._window.max_bytes:
            return 0
        return max(0, self._window.size - (self._accepted - self._flights.released))

    def may_resume(self) -> bool:
        """Half of the window is free again."""
        busy = self._accepted - self._flights.released
        busy_bytes = self._accepted_bytes - self._flights.released_bytes
        return busy <= self._window.size // 2 and busy_bytes <= self._window.max_bytes // 2

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """New homes, in order with the batches that follow."""
        self._bridge.soon(self._flights.assign, tuple(partitions))

    def accept(self, messages: list[RawMessage]) -> None:
        """Hand the batch to the loop."""
        self._raise_failure()
        if not messages:
            return
        self._accepted += len(messages)
        self._accepted_bytes += sum(len(message.value() or b"") for message in messages)
        self._unsettled = True
        self._bridge.soon(self._flights.accept, messages)

    def reached_end(self, ends: Mapping[TopicPartition, int]) -> None:
        """Gaps and markers at the end of a log need no work."""
        self._unsettled = True
        self._bridge.soon(self._flights.reached_end, dict(ends))

    def settled(self) -> dict[TopicPartition, int]:
        """The contiguous prefix of every partition."""
        self._raise_failure()
        if not self._unsettled:
            return {}
        busy = not self.idle()
        settled = self._bridge.call(self._flights.settled())
        self._unsettled = busy
        return settled

    def rewinds(self) -> dict[TopicPartition, int]:
        """Where outputs were refused; each is given once, and none of an assignment that is gone."""
        taken: dict[TopicPartition, int] = {}
        while True:
            try:
                home, offset = self._flights.rewinds.get_nowait()
            except queue.Empty:
                return taken
            if home.alive:
                taken[home.partition] = offset

    def rewound(self, partitions: Sequence[TopicPartition]) -> None:
        """Batches handed over from now on come from there."""
        self._bridge.soon(self._flights.mended, tuple(partitions))

    def revoked(self, partitions: Sequence[TopicPartition], timeout: float) -> dict[TopicPartition, int]:
        """Finish what is at work in these, within one shared time."""
        return self._bridge.call(self._flights.finish(partitions, timeout))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Throw their work away; when this returns, nothing of it can ask for anything any more."""
        self._bridge.call(self._flights.lose(tuple(partitions)))

    def idle(self) -> bool:
        """Whether everything handed over is released."""
        return self._accepted == self._flights.released

    def drain(self, timeout: float) -> None:
        """Finish the window."""
        self._bridge.call(self._flights.drain(timeout))

    def close(self) -> None:
        """Close the step and the producer."""
        try:
            self._bridge.call(self._flights.close())
        finally:
            self._producer.close()

    def _raise_failure(self) -> None:
        failure: SageError | None = self._flights.failure
        if failure is not None:
            raise failure
