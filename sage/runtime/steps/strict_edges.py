"""``--strict-edges``: what one fused step gives the next goes through its topic's form, as it would without fusion.

Fused steps hand plain values over as they are, and look no deeper than the outermost: a date or a model inside a
dict reaches the next step as an object, and as text or a mapping once something comes between the two. This finds such
values before a change of the graph does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sage.runtime.steps.binding import BoundStep, Call, Mode
from sage.runtime.steps.codec import decoder, encode

_FROM_JSON = decoder("json")


def make_strict(steps: Sequence[BoundStep]) -> None:
    """Have each step but the last of a chain give what its reader would find on a topic.

    A value without a form there fails its record in the step that gave it.
    """
    for step in steps[:-1]:
        if step.call is not None and step.mode in (Mode.MAP, Mode.FLATMAP):  # others hand on what they were given
            step.call = _through_topic(step.call, several=step.mode is Mode.FLATMAP)


def _through_topic(call: Call, *, several: bool) -> Call:
    function = call.function

    def given(value: Any, *ctx: Any) -> Any:
        result = function(value, *ctx)
        if ctx and ctx[0].diverted:  # the value went to a branch, and this one goes nowhere
            return result
        return [_read_back(each) for each in result or ()] if several else _read_back(result)

    return replace(call, function=given)


def _read_back(value: Any) -> Any:
    data = encode(value)
    return value if data is None or type(value) is bytes else _FROM_JSON(data)
