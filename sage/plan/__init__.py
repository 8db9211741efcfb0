"""Topology -> Plan: stages, topics, partitions and groups. No I/O, no clock."""
