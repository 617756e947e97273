"""A run whatever happens: where it breaks, a journal with status `aborted` says of what.

Invariant: only KeyboardInterrupt and its like pass; two runs that break in the same way have the same `signs`.
"""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chaos.drivers.driver import DriverError
from chaos.experiment import Experiment
from chaos.journal import Journal

INTERRUPTED: Final = "interrupted"
_ROOT: Final = Path(__file__).parent.parent


def attempt(run: Callable[[], Journal], experiment: Experiment, driver: str) -> Journal:
    """The journal of `run`, or of how it broke."""
    try:
        return run()
    except DriverError as error:
        return aborted(experiment, driver, str(error))
    except (
        Exception
    ) as error:  # a core that breaks is a finding like any other: the journal says which and where
        if os.environ.get("GOSSAMER_DEBUG", "") not in ("", "0"):
            traceback.print_exc()
        return aborted(experiment, driver, f"{type(error).__name__} in {_place(error)}: {error}".rstrip(": "))


def aborted(experiment: Experiment, driver: str, reason: str) -> Journal:
    """The journal of a run that came to no verdict."""
    return Journal(
        experiment=experiment, driver=driver, seed=experiment.seed, status="aborted", reason=reason
    )


def signs(journal: Journal) -> frozenset[str]:
    """How a run went wrong: what was violated, or what broke and where; empty if all held."""
    if journal.status == "aborted":
        return frozenset({journal.reason.partition(":")[0]})
    return frozenset(violation.invariant for violation in journal.violations)


def _place(error: BaseException) -> str:
    """Where it was raised: file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "no file"
    path = Path(frames[-1].filename)
    return f"{path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path.name}, line {frames[-1].lineno}"
