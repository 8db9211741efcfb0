import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

import sage_connectors
from sage.model.record import Record
from sage_connectors import CollectionSource, CollectSink
from tests.unit.connectors.reading import assert_resumes_at_every_position, assert_takes_a_batch_twice, values_of


def collection(values: Any) -> CollectionSource:
    return CollectionSource(CollectionSource.Config(values=values))


async def test_gives_the_values_in_order_and_goes_on_where_it_stopped() -> None:
    await assert_resumes_at_every_position(collection(["a", {"b": 1}, None, Record("c", key="k")]))
    assert await values_of(collection(iter([1, 2, 3])), 2) == [3]
    assert await values_of(CollectionSource()) == []


@pytest.mark.parametrize("values", ["text", b"bytes", 3])
def test_what_is_no_collection_is_refused(values: object) -> None:
    with pytest.raises(ValidationError):
        collection(values)


async def test_collects_into_the_callers_own_list() -> None:
    mine: list[Any] = []
    await assert_takes_a_batch_twice(
        CollectSink(CollectSink.Config(into=mine)), [Record(n, id=str(n)) for n in range(3)]
    )
    assert mine == [0, 1, 2]


def test_every_connector_is_imported_by_its_name_only_when_used() -> None:
    for name in sage_connectors.__all__:
        assert getattr(sage_connectors, name).__name__ == name
    code = "import sys, sage_connectors; print([m for m in sys.modules if m.startswith('sage_connectors.')])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ".:connectors"}
    )
    assert out.stdout.strip() == "[]"
    with pytest.raises(AttributeError):
        sage_connectors.Nothing  # noqa: B018
