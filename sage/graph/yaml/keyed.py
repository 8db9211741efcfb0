"""What a ``process`` step has beside its code: the model of its state, its ttl, its timers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sage.graph.targets import state_problem, timer_problem
from sage.graph.topology import KeyedSettings
from sage.graph.yaml.document import Path
from sage.model.duration import seconds


class Reading(Protocol):
    """What of the reader is needed here."""

    def problem(self, path: Path, what: str) -> None:
        """Note what is wrong, and where."""
        ...

    def load_reference(self, path: Path, text: Any) -> Any:
        """The code that a text names, or ``None`` with a problem noted."""
        ...


def read_keyed(path: Path, body: Mapping[str, Any], target: Any, reading: Reading) -> KeyedSettings:
    """The settings in the body of one step with this target; what is wrong is noted."""
    state = on_timer = ttl = None
    if (text := body.get("state")) is not None:
        state = reading.load_reference((*path, "state"), text)
        if state_problem(state) is not None:
            reading.problem((*path, "state"), f"must name a pydantic model; {text} is none")
            state = None
    if (text := body.get("on_timer")) is not None:
        on_timer = reading.load_reference((*path, "on_timer"), text)
        problem = timer_problem(target, on_timer)
        if problem is not None:
            reading.problem((*path, "on_timer"), problem.removeprefix("on_timer: "))
            on_timer = None
    if (given := body.get("ttl")) is not None:
        try:
            ttl = seconds(given)
        except ValueError as error:
            reading.problem((*path, "ttl"), str(error))
    return KeyedSettings(state, ttl, on_timer)
