from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sage.operators import TextSplitter
from sage.spec.context import Context

PAGE = """Before any heading.

# Leave

## Annual leave ##

New staff get 20 days. Ask your manager.

```sh
# not a heading
```

## Sick leave

### Notes

A note is needed.

# 请假

新员工有 20 天。
"""


def split(value: Any, **config: Any) -> list[dict[str, Any]]:
    return list(TextSplitter(TextSplitter.Config(**config)).process(value, cast(Context, None)))


def test_markdown_is_cut_at_its_headings_which_stay_with_the_text() -> None:
    passages = split({"path": "docs/leave.md", "text": PAGE})
    assert [(one["id"], one["metadata"].get("heading")) for one in passages] == [
        ("docs/leave.md#0", None),
        ("docs/leave.md#1", "Leave > Annual leave"),
        ("docs/leave.md#2", "Leave > Sick leave > Notes"),
        ("docs/leave.md#3", "请假"),
    ]
    assert passages[1]["text"].startswith("Leave > Annual leave\n\nNew staff get 20 days.")
    assert "# not a heading" in passages[1]["text"]
    assert passages[3] == {
        "id": "docs/leave.md#3",
        "text": "请假\n\n新员工有 20 天。",
        "metadata": {"source": "docs/leave.md", "chunk": 3, "chunks": 4, "heading": "请假"},
    }


def test_long_sections_are_cut_within_the_size_each_with_its_heading() -> None:
    body = " ".join(f"Sentence number {n} of this section." for n in range(60))
    passages = split({"path": "a.md", "text": f"# Long\n\n{body}"}, size=200)
    assert len(passages) > 5
    for one in passages:
        assert one["text"].startswith("Long\n\nSentence")
        assert len(one["text"]) <= 200 + len("Long\n\n")
    words = [word for one in passages for word in one["text"].split("\n\n", 1)[1].split()]
    assert words == body.split(), "nothing is lost, nothing twice"


def test_overlap_repeats_the_end_of_the_passage_before() -> None:
    body = " ".join(f"Sentence {n}." for n in range(60))
    first, second, *_ = split({"text": body}, size=100, overlap=40)
    assert second["text"].split(".")[0] in first["text"]


def test_plain_text_keeps_its_hash_marks() -> None:
    (passage,) = split({"path": "notes.txt", "text": "# not a heading\n\ntext"})
    assert passage["text"] == "# not a heading\n\ntext"
    assert "heading" not in passage["metadata"]


@pytest.mark.parametrize(
    ("record", "config", "heading"),
    [
        ({"path": "a.txt", "text": "# H\n\nx"}, {"format": "markdown"}, "H"),
        ({"path": "a.html", "text": "# H\n\nx", "format": "markdown"}, {}, "H"),
        ({"path": "a.md", "text": "# H\n\nx"}, {"format": "text"}, None),
        ({"path": "a.MD", "text": "# H\r\n\r\nx\r\n"}, {}, "H"),
    ],
)
def test_the_format_is_the_options_the_records_or_the_paths(
    record: dict[str, Any], config: dict[str, Any], heading: str | None
) -> None:
    assert split(record, **config)[0]["metadata"].get("heading") == heading


def test_sources_are_named_relative_to_the_root() -> None:
    def source(path: str) -> str:
        name: str = split({"path": path, "text": "x"}, root="docs/")[0]["metadata"]["source"]
        return name

    assert source("docs/leave.md") == "leave.md"
    assert source("docs/a/../b/leave.md") == "b/leave.md"
    assert source("elsewhere/leave.md") == "elsewhere/leave.md"


def test_a_documents_own_metadata_stays() -> None:
    record = {"id": "doc-1", "text": "x", "metadata": {"lang": "en", "source": "overwritten"}}
    (passage,) = split(record)
    assert passage["metadata"] == {"lang": "en", "source": "doc-1", "chunk": 0, "chunks": 1}
    assert record["metadata"] == {"lang": "en", "source": "overwritten"}


def test_a_bare_text_is_named_by_its_content() -> None:
    assert split("one text") == split("one text")
    assert split("one text")[0]["id"] != split("another")[0]["id"]


@pytest.mark.parametrize("text", ["", "  \n \n"])
def test_a_document_without_text_gives_the_sign_to_delete_it(text: str) -> None:
    assert split({"path": "a.md", "text": text}) == [
        {"id": "a.md#0", "text": "", "metadata": {"source": "a.md", "chunk": 0, "chunks": 0}}
    ]


def test_headings_alone_are_a_passage() -> None:
    assert [one["text"] for one in split({"path": "a.md", "text": "# One\n## Two\n"})] == ["One > Two"]


def test_a_record_without_text_is_refused_with_its_fields() -> None:
    with pytest.raises(KeyError, match="text") as caught:
        split({"path": "a.md", "body": "x"})
    assert "the record has: body, path" in caught.value.__notes__
    with pytest.raises(TypeError, match="text is a int"):
        split({"text": 3})


@pytest.mark.parametrize("value", [None, 5, ["a"]])
def test_other_values_than_texts_and_objects_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="a record of this step is a text or a JSON object, not"):
        list(TextSplitter().process(value, cast("Context", None)))


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError, match="overlap 100 must be less than size 100"):
        TextSplitter.Config(size=100, overlap=100)
    with pytest.raises(ValidationError):
        TextSplitter.Config.model_validate({"chunk": 3})


@given(st.text(st.sampled_from("ab #\n`~中。. "), max_size=300))
def test_no_letter_of_a_document_is_lost(text: str) -> None:
    passages = split({"path": "a.txt", "text": text}, size=20)
    kept = "".join(one["text"] for one in passages)
    assert [c for c in kept if not c.isspace()] == [c for c in text if not c.isspace()]


@given(st.text(st.sampled_from("ab #\n`~中。. "), max_size=300))
def test_any_markdown_gives_passages_in_order_with_distinct_ids(text: str) -> None:
    passages = split({"path": "a.md", "text": text}, size=20)
    assert [one["id"] for one in passages] == [f"a.md#{n}" for n in range(len(passages))]
    assert all(one["metadata"]["chunks"] in {len(passages), 0} for one in passages)
