"""Asynchronous stages: many records at work at once, in lanes, inside a bounded window."""
