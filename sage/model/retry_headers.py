"""The headers of a record in a retry topic: where it came from, and when it may be tried again."""

PREFIX = "sage.retry."

TOPIC = PREFIX + "topic"
PARTITION = PREFIX + "partition"
OFFSET = PREFIX + "offset"
"""Where the record was first read, as decimal text: what its dead letter will say, and how its value is decoded."""
DUE = PREFIX + "due"
"""Milliseconds since the epoch before which it is not tried again; absent is at once."""
ATTEMPTS = PREFIX + "attempts"
"""Tries so far, as decimal text; a replayed dead letter starts at 0."""

ALL = frozenset({TOPIC, PARTITION, OFFSET, DUE, ATTEMPTS})
