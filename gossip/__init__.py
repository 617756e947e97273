"""Membership: SWIM with Lifeguard, as one pure machine (`step`, `deadline`).

Invariant: no I/O, no clock, no entropy; nothing is parsed before it authenticates.
"""
