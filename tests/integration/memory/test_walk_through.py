"""The walk through memory, from making a collection to clearing it, with a second process in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sage.errors import NotFound
from sage.memory import MemoryManager, MockTextEmbedder, VDBMemoryCollection

from .conftest import Place

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]

SECOND_PROCESS = """
import json, sys
from sage.errors import IndexFilterMissing
from sage.memory import MemoryManager

data_dir, uri = json.loads(sys.argv[1])
with MemoryManager(data_dir=data_dir, uri=uri) as memory:
    collection = memory.connect_collection("vdb_test")
    seen = {
        "indexes": collection.indexes,
        "fields": collection.metadata_fields,
        "all": sorted(collection.retrieve("hello", topk=9)),
        "english": collection.retrieve("hello world", topk=9, index_name="en_index", with_metadata=True),
    }
    try:
        collection.insert("bonjour", {"lang": "fr"})
    except IndexFilterMissing as error:
        seen["lost"] = str(error)
    seen["inserted"] = collection.insert("good evening", {"lang": "en"}, "global_index")
    collection.create_index("en_index", metadata_filter_func=lambda m: m.get("lang") == "en")
    collection.insert("see you", {"lang": "en"})
    seen["again"] = sorted(collection.retrieve("hello", topk=9, index_name="en_index"))
    print(json.dumps(seen))
"""


def in_second_process(place: Place) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", SECOND_PROCESS, json.dumps([place.data_dir, place.uri])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def test_the_walk_through(place: Place) -> None:
    manager = MemoryManager(place.data_dir, place.uri)
    collection = manager.create_collection(
        name="vdb_test",
        backend_type="VDB",
        description="a walk",
        embedding_model=MockTextEmbedder(fixed_dim=16),
        dim=16,
    )
    collection.add_metadata_field("source")
    collection.add_metadata_field("lang", str)
    collection.add_metadata_field("timestamp", int)
    first = collection.insert("hello world", {"source": "user", "lang": "en", "timestamp": 1})
    collection.insert("你好,世界。", {"source": "user", "lang": "zh", "timestamp": 2})
    collection.create_index("global_index")
    collection.create_index("en_index", metadata_filter_func=lambda m: m.get("lang") == "en")
    third = collection.insert("hello there, world", {"source": "web", "lang": "en"}, "global_index", "en_index")

    assert collection.retrieve("hello world", topk=1) == ["hello world"]
    english = collection.retrieve("hello world", topk=9, index_name="en_index", with_metadata=True)
    assert [hit["id"] for hit in english] == [first, third]
    assert english[0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert english[0]["metadata"] == {"source": "user", "lang": "en", "timestamp": 1}
    assert sorted(collection.retrieve("hello", topk=9, index_name="global_index")) == sorted(
        ["hello world", "你好,世界。", "hello there, world"]
    )

    manager.store_collection()
    manager.close()  # frees the folder, so that the other process can have it

    seen = in_second_process(place)
    assert seen["indexes"] == ["en_index", "global_index"]
    assert seen["fields"] == {"source": "str", "lang": "str", "timestamp": "int"}
    assert seen["all"] == sorted(["hello world", "你好,世界。", "hello there, world"])
    assert [hit["text"] for hit in seen["english"]] == ["hello world", "hello there, world"]
    assert "'en_index'" in seen["lost"]
    assert "[SAGE603]" in seen["lost"]
    assert seen["again"] == sorted(["hello world", "hello there, world", "good evening", "see you"])

    manager = MemoryManager(place.data_dir, place.uri)
    assert manager.list_collections() == ["vdb_test"]
    again = manager.connect_collection("vdb_test", embedding_model=MockTextEmbedder(fixed_dim=16))
    assert again.count() == 5
    assert again.description == "a walk"
    if place.uri is None:
        VDBMemoryCollection.clear("vdb_test", manager.data_dir)
    else:
        VDBMemoryCollection.clear("vdb_test", uri=place.uri)
    assert manager.list_collections() == []
    with pytest.raises(NotFound, match="vdb_test"):
        manager.connect_collection("vdb_test")
    manager.close()
