"""The values that travel: records, documents, and the rules of names, keys, ids and durations."""
