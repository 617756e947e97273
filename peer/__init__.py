"""The daemon: a pure node, the shell that gives it sockets and a disk, the admin API and the command line.

Invariant: `peer/node.py` is pure; all that touches the world is in `io/`, `run.py`, `admin/` and `cli.py`.
"""
