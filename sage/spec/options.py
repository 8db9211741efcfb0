"""The options that every step takes."""

from __future__ import annotations

from typing import Any, Final, Literal, TypedDict

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from sage.model.duration import Duration

Ordering = Literal["key", "partition", "none"]
OnError = Literal["dlq", "skip", "fail"]
Guarantee = Literal["at_least_once", "exactly_once"]

MOST_PARTITIONS: Final = 100_000
"""Partitions of one topic: far more than clusters bear, and far less than the numbers of Kafka's protocol hold."""


class RetryOptions(TypedDict, total=False):
    """How transient failures are tried again. ``attempts`` counts the first."""

    attempts: int
    backoff: float | str
    max_backoff: float | str


class BatchOptions(TypedDict, total=False):
    """How many values an operator's ``process_batch`` is given, and how long the first waits."""

    max_size: int
    max_wait: float | str


class StepOptions(TypedDict, total=False):
    """The options of a step as the fluent API takes them (``Unpack[StepOptions]``)."""

    name: str
    partitions: int
    parallelism: int
    concurrency: int
    ordering: Ordering
    timeout: float | str
    retry: RetryOptions
    on_error: OnError
    batch: BatchOptions
    blocking: bool
    journal: bool
    standby: int
    labels: dict[str, str]


class RetryPolicy(BaseModel):
    """Bounded, delayed, jittered retries. Durations in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: int = Field(default=5, ge=1, description="Tries in all, the first included.")
    backoff: Duration = Field(default=0.2, description="Seconds before the second try; doubles each time.")
    max_backoff: Duration = Field(default=30.0, description="The longest wait between two tries.")


class BatchPolicy(BaseModel):
    """Micro-batches of a step whose operator takes several values at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_size: int = Field(default=32, ge=1, description="Values per call at most.")
    max_wait: Duration = Field(default=0.005, description="Seconds the first value waits for others.")


class Options(BaseModel):
    """The validated options of a step; ``None`` takes the topology's default, then SAGE's."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    partitions: int | None = Field(
        default=None,
        ge=1,
        le=MOST_PARTITIONS,
        validation_alias=AliasChoices("partitions", "parallelism"),
        description="Partitions of the step's output topic: how many workers can share the next step.",
    )
    concurrency: int | None = Field(default=None, ge=1, description="Calls in flight per worker.")
    ordering: Ordering | None = Field(
        default=None, description="What stays in order: records of a key, of a partition, or nothing."
    )
    timeout: Duration | None = Field(default=None, description="Seconds one call may take.")
    retry: RetryPolicy | None = Field(default=None, description="How transient failures are tried again.")
    on_error: OnError | None = Field(default=None, description="What happens to a record that failed for good.")
    batch: BatchPolicy | None = Field(default=None, description="Micro-batches for operators that take them.")
    blocking: bool | None = Field(default=None, description="True for sync code that waits: it runs in threads.")
    journal: bool | None = Field(
        default=None, description="True where the step's code uses ctx.call in a place that can't be seen."
    )
    standby: int | None = Field(default=None, ge=0, description="Copies of the step's state kept on other workers.")
    labels: dict[str, str] | None = Field(
        default=None, description="What a worker must have been started with (--label) to host the step."
    )

    @property
    def is_default(self) -> bool:
        """Whether the step set no option of its own; only such steps fuse (decision 2)."""
        return not self.model_fields_set

    def as_written(self) -> dict[str, Any]:
        """The options that were set, as plain JSON."""
        return self.model_dump(mode="json", exclude_unset=True)

    def over(self, defaults: Options) -> Options:
        """These options, with unset ones taken from ``defaults``."""
        mine: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        theirs: dict[str, Any] = {name: getattr(defaults, name) for name in defaults.model_fields_set}
        return Options(**(theirs | mine))
