"""Topologies in YAML: the reader, the writer, and the schema of the file."""

from sage.graph.yaml.reader import missing_secrets, parse_topology, read_topology
from sage.graph.yaml.schema import topology_schema
from sage.graph.yaml.writer import write_topology

__all__ = ["missing_secrets", "parse_topology", "read_topology", "topology_schema", "write_topology"]
