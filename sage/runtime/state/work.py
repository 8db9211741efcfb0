"""State and timers of one key, in the hands of one record or timer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from sage.errors import RecordFailure, StageStopped
from sage.runtime.state.envelope import PLAIN_START, Envelope
from sage.runtime.state.timers import KeyTimers
from sage.runtime.steps.codec import json_default

if TYPE_CHECKING:
    from sage.runtime.state.table import PartitionTable

UNCHANGED = object()
"""What a work gives that changed nothing."""


class KeyedWork:
    """The KeyedAccess of one record; ``result`` is what it wants kept. Dropping it changes nothing.

    The state is decoded for this record alone and encoded when the step has returned: a step that fails half-way, or
    keeps the object and changes it later, changes nothing that others see.

    Args:
        table: where it comes from, for its rules, and where it goes back to.
        key: the record's key.
        raw: what is kept for it.
        now_ms: the wall clock, for timers and ttl.
    """

    __slots__ = ("_default", "_envelope", "_loaded", "_now", "_raw", "_short", "_state", "_timers", "key", "table")

    def __init__(self, table: PartitionTable, key: bytes, raw: bytes | None, now_ms: int) -> None:
        self.table = table
        self.key = key
        self._raw = raw
        # Most entries are their state and nothing else: they go a short way, without envelope.
        self._short = table.ttl is None and (raw is None or raw.startswith(PLAIN_START))
        self._now = now_ms
        self._envelope: Envelope | None = None
        self._timers: KeyTimers | None = None
        self._loaded = False
        self._state: Any = None
        self._default: Any = None

    @property
    def timers(self) -> KeyTimers:
        """The key's timers, those that are set and those that this work sets."""
        if self._timers is None:
            self._timers = KeyTimers(self._entry().timers, self._now, self.table.has_timers)
        return self._timers

    @property
    def has_touched_timers(self) -> bool:
        """Whether a timer was set or cancelled."""
        return self._timers is not None and self._timers.touched

    def _entry(self) -> Envelope:
        """What is kept, decoded when it is first asked for."""
        if self._envelope is None:
            envelope = self._envelope = Envelope() if self._raw is None else Envelope.decode(self._raw)
            if self.table.ttl is not None and envelope.is_expired(self._now, self.table.ttl):
                # Without its time it differs from what is kept, so that setting the same state again is a change.
                envelope.state = envelope.changed = None
        return self._envelope

    @property
    def state(self) -> Any:
        """A mapping, or an instance of the model; changed in place or replaced.

        Raises:
            StageStopped: what is kept does not fit the model.
        """
        if not self._loaded:
            self._loaded = True
            self._state = self._load()
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        self._loaded = True
        self._state = value

    def clear(self) -> None:
        """Drop the state; timers stay."""
        self._loaded, self._state = True, None

    def _kept(self) -> Any:
        """The state that is kept, JSON."""
        if self._raw is None:
            return None
        if self._short and self._envelope is None:
            try:
                return orjson.loads(self._raw)["s"]
            except (orjson.JSONDecodeError, KeyError):
                return self._entry().state  # raises StageStopped, which says what is wrong with it
        return self._entry().state

    def _load(self) -> Any:
        kept, model = self._kept(), self.table.model
        if model is None:
            return {} if kept is None else kept
        try:
            if kept is not None:
                # As model_validate, at half its cost; what is kept has its fields' own names, or as the model says.
                return model.__pydantic_validator__.validate_python(kept, by_alias=True, by_name=True)
            made = model()
            self._default = made.model_dump(mode="json", round_trip=True)
            return made
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, problem["loc"]))
            raise StageStopped(
                f"the state of key {self.key!r} does not fit {model.__name__}: {place}: {problem['msg']}; give "
                "new fields a default, or the step another name"
            ) from error

    def result(self) -> Any:
        """What is to be kept now: bytes, ``None`` to forget the key, or ``UNCHANGED``.

        Raises:
            RecordFailure: the state has no JSON form.
        """
        if not self._loaded and not self.has_touched_timers:
            return UNCHANGED
        try:
            if self._short and self._envelope is None:
                state = self._plain()
                data = None if state is None else orjson.dumps({"s": state}, json_default)
                return UNCHANGED if data == self._raw else data
            envelope = self._entry()
            if self._loaded:
                envelope.state = self._plain()
            data = envelope.encode()
            if data == self._raw:
                return UNCHANGED
            if self.table.ttl is not None:
                envelope.changed = self._now
                data = envelope.encode()
        except TypeError as error:
            raise RecordFailure(f"the state of key {self.key!r} has no JSON form: {error}") from error
        return data

    def _plain(self) -> Any:
        state, model = self._state, self.table.model
        if model is None and type(state) is dict:
            return state or None
        if model is not None and state is not None and not isinstance(state, BaseModel):
            state = self._checked(model, state)
        if isinstance(state, BaseModel):
            try:
                serializer = state.__pydantic_serializer__
                # As model_dump, at 2/3 of its cost; without what is computed, which could not be read again.
                plain = serializer.to_python(state, mode="json", round_trip=True, warnings="error")
            except PydanticSerializationError as error:
                raise RecordFailure(f"the state of key {self.key!r} does not fit its model: {error}") from error
            return None if plain == self._default and self._entry().state is None else plain
        if not state and (state is None or isinstance(state, Mapping)):
            return None
        if isinstance(state, dict):
            return state
        if isinstance(state, Mapping):
            return dict(state)
        raise RecordFailure(f"ctx.state is a {type(state).__name__}; it must be a mapping or a model")

    def _checked(self, model: type[BaseModel], state: Any) -> BaseModel:
        try:
            return model.model_validate(state, by_alias=True, by_name=True)
        except ValidationError as error:
            raise RecordFailure(f"ctx.state was set to what is no {model.__name__}: {error}") from error
