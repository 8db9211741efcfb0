"""``sage operators`` and ``sage connectors``: what is installed, and the options of each."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from sage.cli.terminal import Column, terminal

Name = Annotated[str, Parameter(name="NAME", help="Its name, or package.module:Class of your own.")]

_LIST = (
    Column("name"),
    Column("kind", wide=True),
    Column("from_", "FROM"),
    Column("summary"),
    Column("class", wide=True),
)
_CONNECTORS = (_LIST[0], Column("kind"), *_LIST[2:])
_OPTIONS = (Column("option"), Column("type"), Column("default"), Column("description"))


def list_operators() -> None:
    """List the operators that topologies can name."""
    from sage.operations.components import listed

    terminal().rows(listed(("operator",)), _LIST, empty="no operators")


def describe_operator(name: Name, /) -> None:
    """Show an operator's options."""
    from sage.operations.components import described

    _describe(described(name, ("operator",)))


def list_connectors() -> None:
    """List the sources and sinks that topologies can name."""
    from sage.operations.components import listed

    terminal().rows(listed(("source", "sink")), _CONNECTORS, empty="no connectors")


def describe_connector(name: Name, /) -> None:
    """Show a source's or sink's options; where a name is both, both."""
    from sage.operations.components import described

    _describe(described(name, ("source", "sink")))


def _describe(found: list[dict[str, Any]]) -> None:
    shown = terminal()
    if shown.is_structured:
        shown.data(found if len(found) > 1 else found[0])
        return
    for index, one in enumerate(found):
        if index:
            shown.line()
        shown.line(f"{shown.bold(one['name'])} ({one['kind']}, {one['class']})")
        for line in one["description"].splitlines():
            shown.line(f"  {line}".rstrip())
        shown.line()
        shown.rows(one["options"], _OPTIONS, empty="it has no options")
