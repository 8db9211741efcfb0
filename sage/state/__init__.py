"""Copies of keyed state on this machine: RocksDB for workers, plain dicts for the test driver."""
