"""Reference topologies, written as a user would."""
