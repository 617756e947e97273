"""What the commands of `gossamer chaos` read and write, and who runs it.

Invariant: what is wrong with a file or an option ends the command with exit code 2 and names it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from peer.commands.options import Failure

if TYPE_CHECKING:
    from chaos.drivers.driver import Driver
    from chaos.experiment import Experiment
    from chaos.journal import Journal

LIBRARY: Final = Path(__file__).parent / "experiments"
DRIVERS: Final = ("sim", "netns", "process", "toxiproxy")

file_path = click.Path(path_type=Path, dir_okay=False)


def driver_of(name: str) -> "Driver":
    """The driver of that name, imported when it is asked for."""
    match name:
        case "sim":
            from chaos.drivers.sim import SimDriver

            return SimDriver()
        case "netns" | "process":
            from chaos.drivers.real import NetnsDriver, ProcessDriver

            return NetnsDriver() if name == "netns" else ProcessDriver()
        case "toxiproxy":
            from chaos.drivers.toxiproxy import ToxiproxyDriver

            return ToxiproxyDriver()
    raise Failure(f"this version has no driver {name!r}: there is {', '.join(DRIVERS)}", code=2)


def load(name: str) -> "Experiment":
    """The experiment in that file, or of that name in the library."""
    from chaos.experiment import ExperimentError
    from chaos.experiment import load as read

    path = Path(name)
    if not path.exists() and (LIBRARY / f"{name}.yaml").is_file():
        path = LIBRARY / f"{name}.yaml"
    try:
        return read(path)
    except ExperimentError as error:
        raise Failure(*error.lines, code=2) from error


def resolved(experiment: "Experiment", seed: int | None, name: str) -> "Experiment":
    """With all its choices made, by that seed or its own."""
    from chaos.experiment import ExperimentError
    from chaos.plan import resolve

    if seed is not None:
        experiment = experiment.model_copy(update={"seed": seed})
    try:
        return resolve(experiment, source=name)
    except ExperimentError as error:
        raise Failure(*error.lines, code=2) from error


def check(driver: "Driver", experiment: "Experiment", name: str) -> None:
    """End the command if the driver cannot do all of it."""
    lacks = driver.lacks(experiment)
    if lacks:
        raise Failure(*(f"{name}: {lack.place}: driver {driver.name}: {lack.why}" for lack in lacks), code=2)


def kept(name: str) -> tuple["Experiment", "Journal | None"]:
    """An experiment, resolved, of a journal (with that journal) or of a file."""
    from chaos.journal import JournalError, read_journal

    if not name.endswith(".json"):
        return resolved(load(name), None, name), None
    try:
        journal = read_journal(Path(name))
    except JournalError as error:
        raise Failure(str(error), code=2) from error
    return journal.experiment, journal


def write(path: Path, text: str) -> None:
    """Write a file. Raises Failure."""
    try:
        path.write_text(text)
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror or error}") from error


def nothing(_done: float, _total: float, _what: str) -> None:
    """Progress that nobody watches."""
