"""The seam: what an experiment needs of whoever runs it.

Invariant: a driver that lacks something says so in `lacks`, before anything is done; `run` leaves the machine as it
found it, however it ends.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from chaos.experiment import Experiment
from chaos.hypothesis import Invariant
from chaos.journal import Journal

Progress = Callable[[float, float, str], None]  # (seconds done, seconds in all, what happens now)


class DriverError(Exception):
    """The driver cannot begin, or cannot go on; the message says why and what to do. Everything was undone."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Something in an experiment that a driver cannot do: the place in the file, and why."""

    place: str
    why: str


class Driver(Protocol):
    """Runs resolved experiments (`chaos/plan.py`)."""

    name: str
    sees: frozenset[Invariant]  # what it can judge

    def lacks(self, experiment: Experiment) -> tuple[Lack, ...]:
        """What of it cannot be done here."""

    def run(self, experiment: Experiment, progress: Progress) -> Journal:
        """Do it and judge. Raises DriverError, and KeyboardInterrupt if somebody ends it; all is undone by then."""
