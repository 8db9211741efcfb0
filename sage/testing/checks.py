"""What every operator, source and sink must do, checked for authors of components.

Each check raises AssertionError with a sentence that says what was expected, and returns what it saw, for
assertions of your own.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel

from sage.graph.builder import StreamBuilder
from sage.graph.stream import DataStream
from sage.model.json import Json
from sage.model.record import Record
from sage.ports import ChatModel, Embedder
from sage.runtime.steps.codec import encode
from sage.spec.component import Component, Operator, Sink, Source, UnboundedSource
from sage.spec.config import make_component
from sage.spec.context import Context, OpenContext, StepScope
from sage.spec.shape import shape_of
from sage.testing.broker import InMemoryMessage
from sage.testing.crash import Crash
from sage.testing.services import ScriptedServices

R = TypeVar("R")
Config = Mapping[str, Any] | None

STEP = "checked"
READ_SECONDS = 30.0
"""How long a bounded read may take before it counts as one that never ends."""


def check_operator(
    operator: type[Operator[Any, Any]],
    config: Config = None,
    values: Sequence[Any] = (),
    *,
    chat_model: ChatModel | None = None,
    embedder: Embedder | None = None,
    prepare: Callable[[Any], None] | None = None,
    key: Json | bytes = None,
    state: type[BaseModel] | None = None,
) -> list[Any]:
    """Run ``operator`` over ``values`` as a topology would, exactly once, with a crash in the middle.

    It must take its configuration, take every value, give what has a JSON form, survive a restart, and give
    the same for a batch as for its values one by one, where it has ``process_batch`` and calls no chat model.
    One that calls no chat model is killed right after a call, so that it sees that value twice.

    Args:
        prepare: is given the (in-memory) ``MemoryManager`` before the operator is opened.
        key: of every value, for an operator that keeps state and goes into ``KeyedStream.process``.
        state: the model of its state.

    Returns:
        The outputs, one per value; of a generator all of them.
    """
    _check_config(operator)
    assert values, "give at least one value"
    keyed = None if key is None else (key, state)
    outputs = _apart(lambda: _drive(operator, config, values, chat_model, embedder, prepare, keyed))
    if callable(getattr(operator, "process_batch", None)) and chat_model is None:
        _run(_check_batch(operator, config, values, embedder, prepare))
    return outputs


def _drive(
    operator: type[Operator[Any, Any]], config: Config, values: Sequence[Any], chat_model: ChatModel | None,
    embedder: Embedder | None, prepare: Callable[[Any], None] | None,
    keyed: tuple[Json | bytes, type[BaseModel] | None] | None,
) -> list[Any]:  # fmt: skip
    from sage.testing.driver import TopologyDriver

    generates = keyed is not None or shape_of(operator, "map").is_generator
    builder = StreamBuilder("check", guarantee="exactly_once")
    stream: DataStream[Any] = builder.from_collection([])
    if keyed is not None:
        by_key: Any = stream.key_by(lambda value: keyed[0], name="keyed")
        by_key.process(operator, config, name=STEP, on_error="dlq", state=keyed[1])
    else:
        (stream.flatmap if generates else stream.map)(operator, config, name=STEP, on_error="dlq")
    overrides = {STEP: chat_model} if chat_model is not None else {}
    with TopologyDriver(builder, overrides, embedder=embedder) as driver:
        if prepare is not None:
            prepare(driver.memory)
        for index, value in enumerate(values):
            if index == len(values) // 2:
                driver.crash()
                if chat_model is None:  # a script has one reply a call, and this makes one call more
                    driver.fail_next(STEP, Crash(after=True))
            driver.send(value)
            driver.advance("10m")  # slow calls and retries end within it
        dead = driver.dead_letters()
        outputs = driver.outputs(STEP)
    assert not dead, f"{operator.__name__} failed for {dead[0].value!r}: {dead[0].error}: {dead[0].message}"
    assert generates or len(outputs) == len(values), f"{len(values)} values gave {len(outputs)} outputs"
    return outputs


async def _check_batch(
    operator: type[Operator[Any, Any]], config: Config, values: Sequence[Any], embedder: Embedder | None,
    prepare: Callable[[Any], None] | None,
) -> None:  # fmt: skip
    services = ScriptedServices(embedder=embedder)
    if prepare is not None:
        prepare(services.memory)
    component: Any = make_component(operator, dict(config or {}), environ={})
    await component.open(_open_context(services))
    contexts = [_context(services, index) for index in range(len(values))]
    together = await _awaited(component.process_batch(list(values), contexts))
    assert len(together) == len(values), f"process_batch: {len(values)} values gave {len(together)} results"
    for index, value in enumerate(values):
        (alone,) = await _awaited(component.process_batch([value], [contexts[index]]))
        assert _alike(_plain(alone), _plain(together[index])), (
            f"process_batch: result {index} is {together[index]!r} in a batch and {alone!r} alone; "
            "give one result per value, in the order of the values"
        )
    await component.close()


def check_source(source: type[Source[Any]], config: Config = None) -> list[Any]:
    """Read all that is there, and again after each position.

    Tasks must have stable names; a bounded read must end; positions must be JSON and differ; a read after a
    position must give exactly the rest; values must have a form on a topic. A source that raises
    ``UnboundedSource`` is only asked for its tasks.

    Returns:
        The values, task by task; ``Record``s where it gives them.
    """
    _check_config(source)
    return _run(_check_source(source, config))


async def _check_source(source: type[Source[Any]], config: Config) -> list[Any]:
    component: Any = make_component(source, dict(config or {}), environ={})
    again: Any = make_component(source, dict(config or {}), environ={})
    tasks = list(component.tasks())
    assert tasks, f"{source.__name__}.tasks() is empty; a source has one task at least"
    assert len(set(tasks)) == len(tasks), f"tasks() names a task twice: {tasks}"
    assert tasks == list(again.tasks()), "tasks() differ from one instance to the next; positions hang on their names"
    await component.open(_open_context(ScriptedServices()))
    given: list[Any] = []
    for task in tasks:
        try:
            items = await _read(component, task, None)
        except UnboundedSource:
            continue
        _check_positions(items)
        for index, (_, position) in enumerate(items):
            rest = await _read(component, task, orjson.loads(orjson.dumps(position)))
            assert rest == items[index + 1 :], (
                f"task {task!r} after position {position!r}: expected {len(items) - index - 1} items, "
                f"beginning {_shown(items[index + 1 :])}; got {len(rest)}, beginning {_shown(rest)}"
            )
        given += [value for value, _ in items]
    await component.close()
    return given


async def _read(source: Source[Any], task: str, position: Json | None) -> list[tuple[Any, Json]]:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return [item async for item in source.read(task, position, bounded=True)]
    except TimeoutError:
        raise AssertionError(
            f"task {task!r}: a bounded read did not end within {READ_SECONDS:.0f} s; "
            "end it when what is there is given, or raise UnboundedSource"
        ) from None


def _check_positions(items: Sequence[tuple[Any, Json]]) -> None:
    seen: dict[bytes, int] = {}
    for index, (value, position) in enumerate(items):
        try:
            text = orjson.dumps(position, option=orjson.OPT_SORT_KEYS)
        except TypeError as error:
            raise AssertionError(f"position {position!r} of item {index} is not JSON: {error}") from None
        assert orjson.loads(text) == position, f"position {position!r} of item {index} is not the same after JSON"
        assert text not in seen, f"items {seen[text]} and {index} have the same position {position!r}"
        seen[text] = index
        encode(value.value if isinstance(value, Record) else value)


def check_sink(sink: type[Sink[Any]], config: Config, values: Sequence[Any], contents: Callable[[], Any]) -> Any:
    """Write ``values``, then write some again, as after a lost commit and after a restart.

    The sink must take every record and hold each once, by its id.

    Args:
        values: at least two, different from each other.
        contents: what the sink holds now, in a form that can be compared.

    Returns:
        The contents.
    """
    _check_config(sink)
    assert len(values) >= 2, "give at least two values"
    return _run(_check_sink(sink, config, values, contents))


async def _check_sink(sink: type[Sink[Any]], config: Config, values: Sequence[Any], contents: Callable[[], Any]) -> Any:
    records = [
        Record(value, None, (), 1_000 + index, f"check:{index}", "check.values", 0, index)
        for index, value in enumerate(values)
    ]
    empty = contents()
    first = await _opened(sink, config)
    await _awaited(first.write(records[:-1]))
    await _awaited(first.write(records))
    held = contents()
    _check_count(held, empty, len(records))
    await _awaited(first.write(records))
    _check_same(held, contents(), "the same batch was written again")
    await first.close()
    _check_same(held, contents(), "it was closed")
    second = await _opened(sink, config)
    await _awaited(second.write(records))
    await second.close()
    _check_same(held, contents(), "the same batch was written after a restart")
    return held


async def _opened(sink: type[Sink[Any]], config: Config) -> Any:
    component = make_component(sink, dict(config or {}), environ={})
    await component.open(_open_context(ScriptedServices()))
    return component


def _check_count(held: Any, empty: Any, written: int) -> None:
    assert held != empty, "the contents are what they were before; records must be there when write() returns"
    if isinstance(held, Sized) and isinstance(empty, Sized) and not isinstance(held, str | bytes):
        count = len(held) - len(empty)
        assert count == written, f"{written} records were written, some of them twice, and it holds {count}"


def _check_same(held: Any, now: Any, what: str) -> None:
    assert now == held, f"{what}, and the contents changed from {held!r} to {now!r}; write by record.id"


def _check_config(component: type[Component]) -> None:
    try:
        orjson.dumps(component.Config.model_json_schema())
    except Exception as error:
        raise AssertionError(f"{component.__name__}.Config has no JSON schema: {error}") from error


def _open_context(services: ScriptedServices) -> OpenContext:
    return OpenContext("check", STEP, services)


def _context(services: ScriptedServices, offset: int) -> Context:
    import logging

    scope = StepScope("check", STEP, services, logging.getLogger("sage.step"))
    return Context(scope).bind(InMemoryMessage("check.values", 0, offset), f"check:{offset}")


async def _awaited(result: Any) -> Any:
    return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result


def _plain(value: Any) -> Any:
    data = encode(value)
    return data if data is None or isinstance(value, bytes) else orjson.loads(data)


def _alike(one: Any, other: Any) -> bool:
    """Equal, but for the last digits of numbers, which vector arithmetic does not keep from batch to batch."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-5, abs_tol=1e-7)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _shown(items: Sequence[Any]) -> str:
    return repr(items[0]) if items else "nothing"


def _run(work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end."""
    return _apart(lambda: asyncio.run(work))


def _apart(work: Callable[[], R]) -> R:
    """Work on a thread of its own: the caller may be inside an event loop."""
    with ThreadPoolExecutor(1, "sage-check") as thread:
        return thread.submit(work).result()
