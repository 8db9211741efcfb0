import subprocess
import sys

import pytest

from sage.errors import InvalidTopology, UnknownName
from sage.graph.endpoints import Collect, Print
from sage.spec.registry import Entry, Registry

REGISTRY = Registry(
    [
        Entry("sink", "print", "sage.graph.endpoints:Print", "sage-streams"),
        Entry("source", "collection", "sage.graph.endpoints:Collection"),
        Entry("operator", "lost", "not_installed_anywhere:Lost", "some-extra"),
        Entry("operator", "odd", "json:dumps"),
        Entry("sink", "twice", "a:A", "one"),
        Entry("sink", "twice", "b:B", "two"),
        Entry("sink", "print", "sage.graph.endpoints:Print", "the same again"),
    ]
)


def test_names_load_their_class() -> None:
    assert REGISTRY.names("sink") == ("print", "twice")
    assert REGISTRY.load("sink", "print") is Print


def test_references_load_user_code() -> None:
    assert REGISTRY.load("sink", "sage.graph.endpoints:Collect") is Collect


@pytest.mark.parametrize(
    ("kind", "name", "error", "told"),
    [
        ("sink", "prnt", UnknownName, "unknown sink 'prnt'; did you mean print?"),
        ("source", "print", UnknownName, "'print' is a sink, not a source; write sink: print"),
        ("operator", "my_ops.clean", UnknownName, "is written my_ops:clean"),
        ("operator", "lost", InvalidTopology, "operator lost of some-extra cannot be loaded: no module named"),
        ("operator", "odd", InvalidTopology, "json:dumps is not a Operator class"),
        ("sink", "twice", InvalidTopology, "registered twice, by one (a:A) and two (b:B)"),
    ],
)
def test_what_cannot_be_loaded_is_told(kind, name: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error) as raised:
        REGISTRY.load(kind, name)
    assert told in str(raised.value)


def test_components_are_named_by_registration_else_by_reference() -> None:
    assert REGISTRY.name_of(Print) == "print"
    assert REGISTRY.name_of(Collect) == "sage.graph.endpoints:Collect"
    assert REGISTRY.name_of(lambda value: value) == ""


def test_listing_names_imports_no_component() -> None:
    program = (
        "import sys; from sage.spec.registry import Registry\n"
        "registry = Registry.installed(); [registry.names(kind) for kind in ('operator', 'source', 'sink')]\n"
        "print([name for name in sys.modules if name.startswith(('sage.operators', 'sage_connectors'))])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"
