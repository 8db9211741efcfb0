"""Code that deployed topologies of the tests name."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from pydantic import BaseModel, SecretStr

from sage.model.json import Json
from sage.spec.component import Operator, Source
from sage.spec.context import Context, OpenContext


def times_ten(value: int) -> int:
    return value * 10


def times_hundred(value: int) -> int:
    return value * 100


def plus_one(value: int) -> int:
    return value + 1


class Numbers(Source[int]):
    """Gives 0, 1, 2 ... as far as a test has said, and goes on from its position."""

    limit: ClassVar[int] = 0

    def tasks(self) -> list[str]:
        return ["0", "1"]

    async def read(self, task: str, position: Json | None, *, bounded: bool) -> AsyncIterator[tuple[int, Json]]:
        import asyncio

        number = int(task) if not isinstance(position, int) else position + 2
        while True:
            while number < Numbers.limit:
                yield number, number
                number += 2
            await asyncio.sleep(0.01)


class Waiting(Operator[int, int]):
    """Returns only when a test lets it."""

    goes_on: ClassVar[threading.Event] = threading.Event()
    entered: ClassVar[threading.Event] = threading.Event()

    def process(self, value: int, ctx: Context) -> Any:
        Waiting.entered.set()
        Waiting.goes_on.wait(60)
        return value


class Fragile(Operator[int, int]):
    """Opens only when a test lets it."""

    broken: ClassVar[str] = ""
    opened: ClassVar[int] = 0

    async def open(self, ctx: OpenContext) -> None:
        if Fragile.broken:
            raise RuntimeError(Fragile.broken)
        Fragile.opened += 1

    def process(self, value: int, ctx: Context) -> Any:
        return value


class Keyed(Operator[int, int]):
    """Wants a key for some service."""

    class Config(BaseModel):
        api_key: SecretStr

    def process(self, value: int, ctx: Context) -> Any:
        return value
