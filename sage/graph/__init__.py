"""The logical graph: the fluent builder and the YAML reader, which give the same frozen Topology."""
