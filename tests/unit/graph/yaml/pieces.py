"""Code that the YAML of these tests names."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic import BaseModel, Field, SecretStr

from sage.model.record import Record
from sage.spec.component import Operator, Sink, Source
from sage.spec.registry import Entry, Registry


class File(Source[str]):
    class Config(BaseModel):
        path: str

    async def read(self, task: str, position: Any, *, bounded: bool) -> AsyncIterator[tuple[str, Any]]:
        yield self.config.path, 1


class DenseRetriever(Operator[Any, Any]):
    class Config(BaseModel):
        collection: str
        top_k: int = 5
        filter: str | None = None

    def process(self, value: Any, ctx: Any) -> Any:
        return value


class OpenAIGenerator(Operator[Any, Any]):
    class Config(BaseModel):
        model: str = "local/smollm2"
        api_key: SecretStr | None = Field(default=None, json_schema_extra={"instead": "use model: local/smollm2"})
        prompt: str = ""

    async def process(self, value: Any, ctx: Any) -> Any:
        return value


class Terminal(Sink[Any]):
    async def write(self, records: Sequence[Record[Any]]) -> None: ...


def clean(value: str) -> str:
    return value


def is_long(value: str) -> bool:
    return len(value) > 9


def batched(values: list[str]) -> list[str]:
    return values


class Twice:
    def __call__(self, value: str) -> list[str]:
        return [value, value]


REGISTRY = Registry(
    [
        Entry("source", "file", f"{__name__}:File"),
        Entry("operator", "dense_retriever", f"{__name__}:DenseRetriever"),
        Entry("operator", "openai_generator", f"{__name__}:OpenAIGenerator"),
        Entry("sink", "terminal", f"{__name__}:Terminal"),
    ]
)
