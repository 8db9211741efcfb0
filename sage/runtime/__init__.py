"""The stage runtime: actors, tasks, trackers, checkpoints, dead letters, sources and the end of a run."""
