"""``sage memory ingest``: a topology of its own, from files to a collection."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.environments.local import LocalEnvironment
from sage.errors import RecordFailure
from sage.graph.stream import DataStream
from sage_connectors.files.locate import locate


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What was read and stored.

    Attributes:
        files: documents read.
        passages: passages in the collection that came of them.
        changed: passages that were not stored already.
        embedding, dim: the collection's embedder.
        seconds: from the first look at the files to the last commit.
    """

    files: int
    passages: int
    changed: int
    embedding: str
    dim: int
    seconds: float


def ingest_documents(
    collection: str,
    paths: Sequence[Path],
    *,
    data_dir: Path,
    memory: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Read ``paths`` into ``collection``: files -> split -> embed -> Milvus, over Kafka topics like any topology.

    The same files again change nothing; a changed file replaces its passages.

    Raises:
        NotFound: a path does not exist, or holds no documents.
        RecordFailure: some passages could not be stored; they are in the topology's dead letters.
    """
    files = [file for path in paths for file in locate(str(path), documents=True).files]
    started = time.monotonic()
    with LocalEnvironment(_topology_name(collection), data_dir=data_dir) as env:
        env.set_memory(memory)
        stored = ingestion(env, collection, paths)
        env.submit()
        with _telling(progress, stored, len(files)):
            report = env.run_once()
        if report.dead_letters:
            raise RecordFailure(
                f"{report.dead_letters} passages were not stored; see `sage dlq list {env.topology.name}`",
                where=f"collection {collection!r}",
            )
        embedder = env.memory_manager.connect_collection(collection).embedder
    return IngestReport(
        files=len(files),
        passages=sum(1 for one in stored if one.get("stored") != "empty"),
        changed=sum(1 for one in stored if one.get("stored") in ("added", "updated")),
        embedding=embedder.name,
        dim=embedder.dim,
        seconds=time.monotonic() - started,
    )


@contextmanager
def _telling(
    progress: Callable[[int, int], None] | None, stored: Sequence[dict[str, Any]], total: int
) -> Iterator[None]:
    """Tell ``progress`` how many files have passages stored, from a thread, while the block runs."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def tell() -> None:
        while not done.wait(0.2):
            begun = {one.get("metadata", {}).get("source") for one in list(stored)}
            progress(min(len(begun), total), total)

    progress(0, total)
    teller = threading.Thread(target=tell, name="sage-progress", daemon=True)
    teller.start()
    try:
        yield
        progress(total, total)
    finally:
        done.set()
        teller.join()


def ingestion(env: LocalEnvironment, collection: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Describe the ingestion in ``env``; gives the list that fills with what was stored.

    Documents are keyed by their path, so that the passages of one stay in order while several are at work.
    """
    from sage.operators.memory_writer import MemoryWriter
    from sage.operators.text_splitter import TextSplitter
    from sage_connectors.file_source import FileSource

    streams: list[DataStream[Any]] = []
    for number, path in enumerate(paths, 1):
        name = "files" if len(paths) == 1 else f"files-{number}"
        documents = env.from_source(FileSource, {"path": str(path), "format": "document"}, name=name)
        keyed = documents.key_by("path")
        streams.append(keyed.flatmap(TextSplitter, name=name.replace("files", "split")))
    passages = streams[0] if len(streams) == 1 else streams[0].union(*streams[1:])
    # Whether a service embeds is known when the collection is opened, and the plan is made before that.
    stored: DataStream[Any] = passages.map(
        MemoryWriter, {"collection": collection},
        name="store", concurrency=1, batch={"max_size": 64, "max_wait": 0.05}, journal=True,
    )  # fmt: skip
    return stored.collect(name="stored")


def _topology_name(collection: str) -> str:
    return "ingest-" + (re.sub(r"[^a-z0-9_-]+", "-", collection.lower()).strip("-") or "collection")
