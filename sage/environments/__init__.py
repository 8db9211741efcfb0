"""Environments: a builder, a planner and a driver behind one face."""
