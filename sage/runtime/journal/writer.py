"""Results into the journal's topic: again and again until the broker has them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from sage.errors import NotFound, RecordTooLarge, SageError, StageStopped, TransientFailure, Unreachable
from sage.model.record import Headers
from sage.ports import KafkaClients
from sage.runtime.journal.deliveries import Deliveries
from sage.runtime.journal.entry import CHUNK, CallKey, Chunk, Place, chunks

logger = logging.getLogger("sage.runtime")

SMALLEST: Final = 4_096
"""Bytes per record, below which a topic's limit is refused."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
"""Seconds until a result is written again."""


class ResultWriter:
    """Writes to one topic.

    Args:
        where: topology and step, for messages.
    """

    def __init__(self, clients: KafkaClients, topic: str, where: str) -> None:
        self._clients = clients
        self._topic = topic
        self._where = where
        self._deliveries = Deliveries(clients)
        self._size = CHUNK
        self._look: asyncio.Task[bool] | None = None

    def open(self) -> None:
        """Make the producer: its own, since a transaction would take results back that were paid for."""
        self._deliveries.open()

    async def close(self) -> None:
        """Release the producer."""
        if self._look is not None:
            self._look.cancel()
        await self._deliveries.close()

    async def write(
        self, partition: int, key: CallKey, place: Place | None, data: bytes, came: Headers
    ) -> tuple[int, int]:
        """Write a result, however long the broker is away; its first and last offset.

        Raises:
            StageStopped: the topic is gone or takes nothing.
            Unauthorized: the broker refuses us.
        """
        pause = _FIRST_PAUSE
        while True:
            size = self._size
            try:
                return await self._written(partition, chunks(key, place, data, came, size), key)
            except RecordTooLarge as error:
                if size <= SMALLEST:
                    raise self._stopped(f"records of {size} bytes are too large for it: {error.message}") from error
                # The topic takes less than usual: more and smaller ones. Many may fail at this size at the same time.
                self._size = min(self._size, max(size // 2, SMALLEST))
            except (TransientFailure, Unreachable) as error:
                await self._look_for_topic()
                logger.warning("%s: writing the result of a call again in %g s: %s", self._where, pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except NotFound as error:
                raise self._missing() from error
            except StageStopped as error:
                await self._look_for_topic()
                raise self._stopped(error.message) from error

    async def _written(self, partition: int, records: Iterable[Chunk], key: CallKey) -> tuple[int, int]:
        answers: list[asyncio.Future[int]] = []
        for value, headers in records:
            answers.append(await self._deliveries.queue(self._topic, partition, key.record_id.encode(), value, headers))
        offsets = [await answers[0]] if len(answers) == 1 else await asyncio.gather(*answers)
        return min(offsets), max(offsets)

    async def _look_for_topic(self) -> None:
        """Tell a topic that is gone from a broker that is away; one look for all that wait."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().create_task(asyncio.to_thread(self._is_there))
        if not await asyncio.shield(self._look):
            raise self._missing()

    def _is_there(self) -> bool:
        admin = self._clients.admin()
        try:
            return bool(admin.describe([self._topic]))
        except SageError as error:
            logger.debug("%s: %s", self._where, error)
            return True  # as far as anybody knows
        finally:
            admin.close()

    def _missing(self) -> StageStopped:
        return StageStopped(missing_text(self._topic), where=self._where)

    def _stopped(self, why: str) -> StageStopped:
        return StageStopped(
            f"the journal {self._topic} did not take the result of a call: {why}; nothing was committed past it. See "
            "the topic's settings and ACLs",
            where=self._where,
        )


def missing_text(topic: str) -> str:
    """What to do about a journal that is gone."""
    return (
        f"the journal {topic} does not exist (any more); calls whose results were in it are made again. Start the "
        "topology anew: it makes the topics that are missing"
    )
