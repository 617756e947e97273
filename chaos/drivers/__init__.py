"""Drivers: who does to a mesh what an experiment says. One room each.

Invariant: drivers do not know one another.
"""
