"""Connectors: sources and sinks that come with SAGE."""
