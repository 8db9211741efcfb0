"""``sage topology deploy --wait``: a worker opens the steps before they run, and what it lacks is told before anything
is deployed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sage.memory.manager import MemoryManager
from sage.services.service_set import ServiceSet
from sage.testing import MockTextEmbedder
from tests.integration.cli.conftest import Shell, Typed
from tests.support.programs import sage as program
from tests.support.waiting import wait_until

ASKING = """
version: 1
name: {name}
steps:
  read: {{source: topic, config: {{topic: questions}}}}
  retrieve: {{operator: dense_retriever, from: read, config: {{collection: {collection}}}}}
  out: {{sink: topic, from: retrieve, config: {{topic: {name}-out}}}}
"""


class Changed(MockTextEmbedder):
    """A model that makes vectors of another length than the one of its name makes now."""

    @property
    def name(self) -> str:
        return "mock/8"


def _make_short(shell: Shell) -> None:
    """A collection made by it."""
    port = json.loads((shell.folder / ".sage" / "up.json").read_text())["services"]["memory"]["port"]
    with MemoryManager(uri=f"http://127.0.0.1:{port}") as memory:
        memory.create_collection("short", embedding_model=Changed(fixed_dim=4))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder with a broker, a memory and a worker."""
    shell = Shell(tmp_path_factory.mktemp("preflight"))
    started = shell("up", "--only", "broker,memory")
    assert started.code == 0, started.err
    try:
        assert shell("topics", "create", "questions").code == 0
        assert shell("memory", "create", "handbook").code == 0
        _make_short(shell)
        with program(shell.folder, "worker", "run", environ=shell.environment()):
            wait_until(
                lambda: json.loads(shell("worker", "list", "-o", "json").out), timeout=60, what="the worker is online"
            )
            yield shell
    finally:
        ServiceSet(shell.folder / ".sage").down(timeout=5)


def deploy(place: Shell, name: str, collection: str) -> Typed:
    place.write(f"{name}.yaml", ASKING.format(name=name, collection=collection))
    return place("topology", "deploy", f"{name}.yaml", "--wait", "--timeout", "60s", "-o", "json")


def deployed(place: Shell) -> set[str]:
    return {row["name"] for row in json.loads(place("topology", "list", "-o", "json").out)}


def test_a_missing_collection_is_one_line_with_the_nearest_name_and_4(place: Shell) -> None:
    found = deploy(place, "missing", "handbok")
    (row,) = json.loads(place("worker", "list", "-o", "json").out)
    assert (found.code, found.out, found.err) == (
        4,
        "",
        "missing step \"retrieve\": collection 'handbok' does not exist; there are handbook, short; did you mean "
        "handbook? Or make it with `sage memory ingest handbok docs/` "
        f"(on worker {row['worker']}) [SAGE203]\n",
    )
    assert "missing" not in deployed(place)


def test_a_collection_with_vectors_of_another_length_is_refused(place: Shell) -> None:
    found = deploy(place, "unlike", "short")
    assert (found.code, found.out) == (1, "")
    assert "unlike step \"retrieve\": collection 'short' holds vectors of 4 numbers, made by mock/8;" in found.err
    assert "mock/8 makes 8" in found.err
    assert len(found.err.splitlines()) == 1
    assert "unlike" not in deployed(place)


def test_a_collection_that_fits_is_deployed(place: Shell) -> None:
    found = deploy(place, "fits", "handbook")
    assert (found.code, json.loads(found.out)["version"]) == (0, 1), found.err
    assert "fits" in deployed(place)
