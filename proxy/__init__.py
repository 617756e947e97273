"""Data planes and the decisions they share.

Invariant: the modules directly in this package are pure; only the planes below it (`embedded/`) have sockets.
"""
