"""The virtual world that runs the real node on a virtual clock. Empty until the simulator lands.

Invariant: nothing below this package, save `chaos`, imports it.
"""
