"""The headers of records that enter SAGE, completed with an id and a trace: the fast ways' part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sage.model.identity import SAGE_ID, root_start
from sage.model.record import Headers
from sage.runtime.steps.codec import BYTES_MARK
from sage.runtime.steps.outputs import TRACEPARENT, needs_trace, record_id_of

MARK = BYTES_MARK[0]
_OWN = frozenset({SAGE_ID, MARK})


class Arrivals:
    """Completes headers of the records of one topic.

    Args:
        topic_id: the topic's UUID.
        start_root: gives the headers of a new trace.
    """

    def __init__(self, topic_id: str, start_root: Callable[[], Sequence[tuple[str, bytes]]]) -> None:
        self.roots = _Roots(topic_id)
        self._start_root = start_root

    def completed(self, came: Headers | None, root: bytes) -> list[tuple[str, bytes | None]]:
        """The headers with the record's id last, as the careful way leaves them; the id that it came with, if any."""
        headers, traced = came or (), False
        for name, _ in headers:
            if name in _OWN:  # an id that is not last, or a mark: rare, so in full
                return self._moved_last(headers, root)
            if name == TRACEPARENT:
                traced = True
        return [*headers, (SAGE_ID, root)] if traced else [*headers, *self._start_root(), (SAGE_ID, root)]

    def _moved_last(self, headers: Headers, root: bytes) -> list[tuple[str, bytes | None]]:
        record_id = record_id_of(headers)
        kept = [pair for pair in headers if pair[0] not in _OWN]
        if needs_trace(headers):
            kept += self._start_root()
        return [*kept, (SAGE_ID, root if record_id is None else record_id.encode())]


class _Roots(dict[int, str]):
    """Partition number -> how the ids begin of records that enter SAGE there; made when first asked for."""

    def __init__(self, topic_id: str) -> None:
        super().__init__()
        self._topic_id = topic_id

    def __missing__(self, partition: int) -> str:
        root = self[partition] = root_start(self._topic_id, partition)
        return root
