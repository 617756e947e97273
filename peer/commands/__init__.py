"""The commands of `gossamer`, a module for each family. `peer/cli.py` names them and loads one when it is run.

Invariant: importing a module of this package imports click and the standard library only; what is heavy (pydantic,
yaml, rich, the daemon) is imported where a command needs it.
"""
