"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

DataDir = Annotated[
    Path, Parameter(name="--data-dir", help="The folder of background services and their data.", show_default=True)
]

DEFAULT_DATA_DIR = Path(".sage")

PORT_RANGE = validators.Number(gte=0, lte=65_535)
"""Refuses what no port can be, for options that name one."""

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
