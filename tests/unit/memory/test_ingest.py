from __future__ import annotations

from sage.memory.ingest import chunk_id, content_id


def test_content_ids_depend_on_text_and_metadata_and_nothing_else() -> None:
    assert content_id("a", {"x": 1, "y": 2}) == content_id("a", {"y": 2, "x": 1})
    assert content_id("a") == content_id("a", {})
    assert len({content_id("a"), content_id("b"), content_id("a", {"x": 1}), content_id('a{"x":1}')}) == 4
    assert content_id("lone \ud800")


def test_passages_are_named_by_document_and_place_within_what_milvus_takes() -> None:
    assert chunk_id("docs/leave.md", 2) == "docs/leave.md#2"
    long = chunk_id("文" * 500, 12)
    assert len(long.encode()) < 100
    assert long.endswith("#12")
