"""Experiments: faults as data, drivers, invariants, reports. Empty until the chaos suite lands.

Invariant: nothing below this package imports it.
"""
