"""Experiments: faults as data, drivers that do them, hypotheses that are held against what happened, reports.

`fault.py` and `hypothesis.py` say what there is, `experiment.py` reads files of it, `plan.py` makes every choice that
was left to chance, `drivers/` run the result, `journal.py` keeps what came of it; `swarm.py` makes experiments up from
seeds and `shrink.py` makes those that fail smaller.

Invariant: nothing below this package imports it; a fault is never left out silently.
"""
