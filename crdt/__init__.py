"""Replicated data: clocks, registers, maps, windowed counters, the signed journal and its reconciliation.

Invariant: imports nothing of ours, does no I/O, reads no clock and no entropy.
"""
