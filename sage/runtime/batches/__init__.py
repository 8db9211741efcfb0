"""Synchronous stages: the whole batch in the consumer's thread."""
