"""The logical graph: the fluent builder and the YAML reader, which give the same frozen Topology."""

from sage.graph.builder import StreamBuilder
from sage.graph.stream import Branches, DataStream, KeyedStream
from sage.graph.topology import Input, Origin, Step, StepKind, TopicSettings, Topology

__all__ = [
    "Branches",
    "DataStream",
    "Input",
    "KeyedStream",
    "Origin",
    "Step",
    "StepKind",
    "StreamBuilder",
    "TopicSettings",
    "Topology",
]
