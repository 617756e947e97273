"""Replicated data: clocks, registers, maps, the signed journal and its reconciliation.

Invariant: imports nothing of ours, does no I/O, reads no clock and no entropy.
"""
