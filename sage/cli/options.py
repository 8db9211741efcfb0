"""Options that several commands share."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

DataDir = Annotated[
    Path, Parameter(name="--data-dir", help="The folder of background services and their data.", show_default=True)
]

DEFAULT_DATA_DIR = Path(".sage")

LARGEST = 2**31 - 1
"""What Kafka keeps numbers of partitions in; as seconds 68 years. What is larger was mistyped, and fits nowhere."""


@dataclass(frozen=True, slots=True)
class Within:
    """Refuses a number outside a range, for options that take one; ``nan`` is in no range.

    Attributes:
        least, most: both are taken.
    """

    least: float
    most: float = LARGEST

    def __call__(self, kind: Any, value: Any) -> None:
        """Raises ValueError with the end of a sentence, whose beginning is the option's name."""
        del kind
        if value is None:  # the default of an option that was left out is looked at, too
            return
        if not value >= self.least:
            raise ValueError(f"is {self.least} or more")
        if value > self.most:
            raise ValueError(f"is {self.most} or less")


def writable(kind: Any, path: Any) -> None:
    """Refuses a file that can't be made, before the work whose result it is to hold.

    Raises:
        ValueError: with the end of a sentence, whose beginning is the option's name.
    """
    del kind
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"is a file in a folder that exists; there is no {folder}")
    if path.is_dir():
        raise ValueError(f"is a file; {path} is a folder")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ValueError(f"is a file that may be written; {path} may not")


def named(kind: Any, value: Any) -> None:
    """Refuses an empty name, as a shell gives it for a variable that is not set.

    Raises:
        ValueError: with the end of a sentence, whose beginning is the option's name.
    """
    del kind
    if value is not None and not value.strip():
        raise ValueError("is a name, and not empty")


COUNT = Within(0)
"""For options that say how many, where none is possible."""

AT_LEAST_ONE = Within(1)
"""For options that say how many, where none makes no sense."""

RATE = Within(0.01)
"""For records a second: slower work looks like none, to people and to its group."""

PORT_RANGE = Within(0, 65_535)
"""For options that name a port."""

BootstrapServers = Annotated[
    str | None,
    Parameter(
        name=["--bootstrap-servers", "-b"],
        help="Kafka brokers, host:port,...; else SAGE_BOOTSTRAP_SERVERS, else the context "
        "that `sage config` uses, else what `sage up` started.",
    ),
]

KafkaConfig = Annotated[
    Path | None,
    Parameter(name="--kafka-config", help="A file of librdkafka properties, one key=value a line."),
]

Yes = Annotated[bool, Parameter(name=["--yes", "-y"], negative=(), help="Don't ask.")]
