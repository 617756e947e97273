"""The virtual world: the real node (`peer/node.py`) on a virtual clock, network and disk, up to ten thousand of them.

One process, one thread, one heap of events in order of (time, sequence); nothing in it waits, and one seed is one
story. Deterministic simulation as FoundationDB made it known (Zhou et al., SIGMOD 2021): the code that is tested is
the code that ships, and only what a node cannot see from inside (clock, wires, disk, processor) is a model.

Invariant: nothing below this package, save `chaos`, imports it; nothing in it reads the clock of the machine but to
time itself, and nothing in it depends on the order of a set.
"""
