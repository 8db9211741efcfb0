"""Words that name a file, and words that name what is deployed."""

from __future__ import annotations

import pytest

from sage.cluster.names import ControlTopics
from sage.errors import NotFound
from sage.operations.deployed import deployed_topology, is_target
from sage.testing.broker import InMemoryClients


@pytest.mark.parametrize(
    ("word", "names_a_file"),
    [
        ("rag.yaml", True), ("rag.yml", True), ("qa.py", True), ("qa.py:env", True), ("package.module:env", True),
        ("folder/rag", True), ("rag-qa", False), ("rag_qa-2", False),
    ],
)  # fmt: skip
def test_a_name_has_nothing_that_a_file_has(word: str, names_a_file: bool) -> None:
    assert is_target(word) == names_a_file


def test_where_nothing_was_ever_deployed_it_is_said(clients: InMemoryClients) -> None:
    with pytest.raises(NotFound) as raised:
        deployed_topology(clients, ControlTopics(), "qa")
    assert str(raised.value).startswith("qa: is not deployed on in-memory: nothing ever was")
