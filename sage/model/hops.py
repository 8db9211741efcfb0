"""How often a record went around a cycle."""

HOPS = "sage.hops"
"""The header that counts, as decimal text: raised each time a record is read from an edge that goes back."""
