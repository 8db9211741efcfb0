"""For tests of topologies and components: a driver in memory and virtual time, scripted models, checks.

Every name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage.llm.embedders.mock import MockTextEmbedder
    from sage.testing.broker import InMemoryClients
    from sage.testing.cassettes import CassetteChatModel
    from sage.testing.checks import check_operator, check_sink, check_source
    from sage.testing.crash import Crash
    from sage.testing.driver import TopologyDriver
    from sage.testing.models import Broken, Delayed, Hanging, ScriptedChatModel
    from sage.testing.results import DeadRecord
    from sage.testing.virtual_time import ManualClock

__all__ = [
    "Broken",
    "CassetteChatModel",
    "Crash",
    "DeadRecord",
    "Delayed",
    "Hanging",
    "InMemoryClients",
    "ManualClock",
    "MockTextEmbedder",
    "ScriptedChatModel",
    "TopologyDriver",
    "check_operator",
    "check_sink",
    "check_source",
]

_HOMES = {
    "Broken": "sage.testing.models",
    "CassetteChatModel": "sage.testing.cassettes",
    "Crash": "sage.testing.crash",
    "DeadRecord": "sage.testing.results",
    "Delayed": "sage.testing.models",
    "Hanging": "sage.testing.models",
    "InMemoryClients": "sage.testing.broker",
    "ManualClock": "sage.testing.virtual_time",
    "MockTextEmbedder": "sage.llm.embedders.mock",
    "ScriptedChatModel": "sage.testing.models",
    "TopologyDriver": "sage.testing.driver",
    "check_operator": "sage.testing.checks",
    "check_sink": "sage.testing.checks",
    "check_source": "sage.testing.checks",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sage.testing' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
