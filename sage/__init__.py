"""SAGE: actor-based stream processing over Kafka for LLM, RAG and agent pipelines.

Everything that users type is importable from here; each name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sage.version import __version__

if TYPE_CHECKING:
    from sage.configuration import load_config
    from sage.environments.local import LocalEnvironment
    from sage.environments.remote import RemoteEnvironment
    from sage.errors import SageError
    from sage.graph.stream import Branches, DataStream, KeyedStream
    from sage.graph.topology import Topology
    from sage.memory.collection import VDBMemoryCollection
    from sage.memory.manager import MemoryManager
    from sage.model.record import Record
    from sage.plan.plan import Plan
    from sage.runtime.runs.report import RunReport
    from sage.spec.component import Operator, Sink, Source, UnboundedSource
    from sage.spec.context import Context, OpenContext
    from sage.spec.options import StepOptions

__all__ = [
    "Branches",
    "Context",
    "DataStream",
    "KeyedStream",
    "LocalEnvironment",
    "MemoryManager",
    "OpenContext",
    "Operator",
    "Plan",
    "Record",
    "RemoteEnvironment",
    "RunReport",
    "SageError",
    "Sink",
    "Source",
    "StepOptions",
    "Topology",
    "UnboundedSource",
    "VDBMemoryCollection",
    "__version__",
    "load_config",
]

_HOMES = {
    "Branches": "sage.graph.stream",
    "Context": "sage.spec.context",
    "DataStream": "sage.graph.stream",
    "KeyedStream": "sage.graph.stream",
    "LocalEnvironment": "sage.environments.local",
    "MemoryManager": "sage.memory.manager",
    "OpenContext": "sage.spec.context",
    "Operator": "sage.spec.component",
    "Plan": "sage.plan.plan",
    "Record": "sage.model.record",
    "RemoteEnvironment": "sage.environments.remote",
    "RunReport": "sage.runtime.runs.report",
    "SageError": "sage.errors",
    "Sink": "sage.spec.component",
    "Source": "sage.spec.component",
    "StepOptions": "sage.spec.options",
    "Topology": "sage.graph.topology",
    "UnboundedSource": "sage.spec.component",
    "VDBMemoryCollection": "sage.memory.collection",
    "load_config": "sage.configuration",
}

_LATER = {
    "Joined": "joins need keyed state",
    "hopping": "windows need keyed state",
    "session": "windows need keyed state",
    "tumbling": "windows need keyed state",
}
"""Names that a later version has, and what is missing for them."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        # Of an AttributeError `from sage import tumbling` would not show the text.
        raise ImportError(f"sage.{name} is not in this version: {_LATER[name]} [SAGE110]", name=__name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sage' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
