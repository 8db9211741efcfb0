from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest

from sage.errors import DecodeFailure, NotFound, RecordFailure
from sage.operators import DocumentParser
from sage.operators.document_parser import html_to_markdown
from sage.spec.context import Context


def parse(value: Any, **config: Any) -> dict[str, Any]:
    return DocumentParser(DocumentParser.Config(**config)).process(value, cast(Context, None))


def test_text_and_markdown_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("\ufeff# 标题\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("text", encoding="utf-8")
    assert parse(str(tmp_path / "a.md"))["text"] == "# 标题\n"
    assert parse({"path": str(tmp_path / "b.txt"), "id": 7}) == {
        "path": str(tmp_path / "b.txt"),
        "id": 7,
        "text": "text",
        "format": "text",
    }


def test_a_record_that_has_its_text_is_not_read_again() -> None:
    assert parse({"path": "nowhere/a.md", "text": "# x"})["format"] == "markdown"
    assert parse({"path": "nowhere/a.html", "text": "<h1>x</h1>"})["text"] == "# x"


def test_html_becomes_markdown_without_what_people_do_not_read() -> None:
    page = """<!doctype html><html><head><title>t</title><style>p {}</style></head><body>
      <nav><a href="/">Home</a></nav><h1>Leave &amp; rest</h1><p>New   staff get
      <b>20</b> days.</p><script>if (a < b) alert("x")</script><h2>Sick</h2><ul><li>Call</li><li>Rest</li></ul>
      <table><tr><td>a</td><td>b</td></tr></table><p>unclosed<br>line<footer>(c)</footer></body></html>"""
    assert html_to_markdown(page).split("\n\n") == [
        "# Leave & rest",
        "New staff get 20 days.",
        "## Sick",
        "- Call",
        "- Rest",
        "a b",
        "unclosed",
        "line",
    ]


def test_an_unclosed_block_inside_what_is_skipped_does_not_swallow_the_page() -> None:
    assert html_to_markdown("<nav><svg><p>x</nav><p>kept</p></body>") == "kept"


def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="the library for PDF is not installed")
    (tmp_path / "a.pdf").write_bytes(_pdf("New staff get 20 days."))
    parsed = parse(str(tmp_path / "a.pdf"))
    assert (parsed["text"], parsed["format"]) == ("New staff get 20 days.", "text")


def test_what_is_no_pdf_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pypdf", reason="the library for PDF is not installed")
    (tmp_path / "a.pdf").write_bytes(b"not a pdf")
    with pytest.raises(DecodeFailure, match=r"a\.pdf: is not a PDF that can be read"):
        parse(str(tmp_path / "a.pdf"))


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(NotFound, match=r'pip install "sage-streams\[documents\]"'):
        parse(str(tmp_path / "a.pdf"))


def test_what_cannot_be_read_is_one_records_failure(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DecodeFailure, match=r"a\.txt: is not text in utf-8"):
        parse(str(tmp_path / "a.txt"))
    with pytest.raises(RecordFailure, match=r"missing\.md: cannot be read: No such file"):
        parse(str(tmp_path / "missing.md"))
    with pytest.raises(RecordFailure, match=r"ending in \.docx can't be read; these can: \.txt, .*\.pdf"):
        parse("a.docx")
    with pytest.raises(RecordFailure, match="3 bytes, and max_bytes is 2"):
        parse(str(tmp_path / "a.txt"), max_bytes=2)
    with pytest.raises(KeyError, match="path"):
        parse({"text": "x"})


def _pdf(words: str) -> bytes:
    """The smallest document with one line of text."""
    stream = f"BT /F1 12 Tf 20 100 Td ({words}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%b\nendstream" % (len(stream), stream),
    ]
    out = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return out + b"xref\n0 5\n0000000000 65535 f \n%btrailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(out),
    )
