"""A plan in this process: put together, started, watched, brought to its end, told about."""
