"""A background program that SAGE can start: broker, memory server, model server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServiceCommand:
    """How to start one service and how to know that it answers.

    Attributes:
        name: ``broker``, ``memory`` or ``model``.
        argv: the program and its arguments.
        host, port: where it will listen.
        ready: true as soon as the service answers its own protocol; must not raise.
        env: variables added to this process's environment.
        capabilities: facts for ``up.json`` that clients need, such as ``{"group_protocol": "classic"}``.
    """

    name: str
    argv: tuple[str, ...]
    host: str
    port: int
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    capabilities: Mapping[str, str] = field(default_factory=dict)
