"""The records that a topology is fed: a file's, or those that its own source has now."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from sage.errors import InvalidTopology, NotFound, SageError
from sage.graph.topology import Step, Topology
from sage.model.identity import SAGE_ID
from sage.model.record import Record
from sage.operations.feeding import Feed
from sage.operations.json_lines import json_lines, refused
from sage.operations.reading import partitions_of, read_to_end
from sage.ports import KafkaClients
from sage.runtime.steps.codec import BYTES_MARK, encode
from sage.spec.component import Source, UnboundedSource
from sage.spec.config import make_component
from sage.spec.context import OpenContext
from sage.wiring.folder_services import FolderServices
from sage.wiring.process_services import ProcessServices

MOST: Final = 100_000
"""Records of a source that are taken; more are had by repeating them."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Records, at least one, and where they came from."""

    origin: str
    records: tuple[Feed, ...]

    def repeated(self, count: int) -> Iterator[Feed]:
        """So many of them, beginning again after the last."""
        return itertools.islice(itertools.cycle(self.records), count)

    @property
    def digest(self) -> str:
        """The same for the same keys and values."""
        found = hashlib.sha256()
        for record in self.records:
            for part in (record.key, record.value):
                found.update(b"-" if part is None else b"%d:" % len(part) + part)
        return found.hexdigest()


def sample_file(path: Path, format: str) -> Sample:
    """The JSON values of a file's lines; for a topic of text or bytes each must be a text.

    Raises:
        NotFound: there is no such file.
        DecodeFailure: a line can't be used, or there is none; exit code 2.
    """
    records = []
    for line in json_lines(path, wants="--input wants records"):
        if format == "json":
            records.append(Feed(orjson.dumps(line.value)))
        elif isinstance(line.value, str):
            records.append(Feed(line.value.encode()))
        else:
            raise refused(f"the source reads {format}: write a text in quotes", line.where)
    if not records:
        raise refused("has no records; write one JSON value a line", str(path))
    return Sample(str(path), tuple(records))


def sample_topic(clients: KafkaClients, topic: str, most: int = MOST) -> Sample:
    """The first records of a topic, read outside of any group.

    Raises:
        NotFound: there is no such topic, or nothing in it.
    """
    admin = clients.admin()
    try:
        places = partitions_of(admin, topic, advice="give records with --input FILE")
        starts, ends = admin.start_offsets(places), admin.end_offsets(places)
    finally:
        admin.close()
    found = tuple(
        Feed(message.value(), message.key(), [header for header in message.headers() or () if header[0] != SAGE_ID])
        for message in itertools.islice(read_to_end(clients, starts, ends), most)
    )
    return _filled(Sample(f"topic {topic}", found))


def sample_source(
    step: Step, topology: Topology, data_dir: Path, environ: Mapping[str, str], most: int = MOST
) -> Sample:
    """What a source has now, from its beginning, at most ``most`` records.

    Args:
        step: the source.
        topology: it is from that.
        data_dir: the folder of background services, should it ask for any.
        environ: where its secrets are.
        most: records to take.

    Raises:
        InvalidTopology: it never ends (exit code 2).
        NotFound: it has nothing.
        SageError: it can't be read.
    """
    source = make_component(step.target, step.config, environ=environ, where=step.where, places=step.places)
    if not isinstance(source, Source):
        raise SageError(f"{type(source).__name__} is no source", where=step.where)
    services = ProcessServices(FolderServices(data_dir), topology.memory, environ)
    try:
        records = asyncio.run(_read(source, OpenContext(topology.name, step.name, services), most))
    except UnboundedSource as error:
        raise InvalidTopology(
            f"source {step.name!r} never ends: give records with --input FILE", where=step.where, exit_code=2
        ) from error
    finally:
        services.close()
    return _filled(Sample(f"source {step.name}", records))


async def _read(source: Source[Any], context: OpenContext, most: int) -> tuple[Feed, ...]:
    found: list[Feed] = []
    try:
        await source.open(context)
        for task in source.tasks():
            # Closed by itself: what it holds open must not wait for the garbage collector.
            async with aclosing(source.read(task, None, bounded=True)) as items:  # type: ignore[type-var]
                async for value, _ in items:
                    if len(found) >= most:
                        return tuple(found)
                    found.append(_fed(value))
        return tuple(found)
    finally:
        await source.close()


def _fed(given: Any) -> Feed:
    record = given if isinstance(given, Record) else Record(given)
    key = record.key.encode() if isinstance(record.key, str) else record.key
    mark = [BYTES_MARK] if type(record.value) is bytes else []
    return Feed(encode(record.value), key, [*record.headers, *mark])


def _filled(sample: Sample) -> Sample:
    if not sample.records:
        raise NotFound(f"{sample.origin} has no records now: give some with --input FILE")
    return sample
