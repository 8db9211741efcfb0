"""Topologies that tests of the driver drive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from sage.graph.builder import StreamBuilder
from sage.testing import TopologyDriver

MakeDriver = Callable[..., TopologyDriver]


def double(value: int) -> int:
    return value * 2


async def later(value: int) -> int:
    await asyncio.sleep(30)
    return value + 1


def numbers() -> StreamBuilder:
    """source -> double -> later -> odd -> out."""
    builder = StreamBuilder("t")
    stream: Any = builder.from_collection([], name="source")
    stream.map(double, name="double").map(later, name="later").filter(lambda v: v > 1, name="big").to("out", name="out")
    return builder


def simple(function: Callable[..., Any] = double, **options: Any) -> StreamBuilder:
    builder = StreamBuilder("t")
    builder.from_collection([], name="source").map(function, name="work", **options)
    return builder
