"""The journal of a run: what was done, what was seen, and the verdict. Plain data, kept as JSON.

Statuses are Chaos Toolkit's: `completed`, `failed` (a violation: the steady state was left), `aborted` (the driver
could not do what was asked). `deviated` says whether the steady state was left.

Invariant: a journal holds the resolved experiment, so that it alone is enough to run it again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from chaos.experiment import Experiment, ExperimentError, read
from peer.yamlfile import YamlFileError, read_text

FORMAT: Final = 1
VIOLATIONS_MAX: Final = 50

Status = Literal["completed", "failed", "aborted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """What did not hold: the name of an invariant or a bound, when (seconds since the start), in words."""

    invariant: str
    at_s: float
    what: str
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """A fault as it was injected. `ends_s`: when it was undone; None: it was over at once, or lasted to the end."""

    label: str
    at_s: float
    ends_s: float | None
    nodes: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """From `at_s` on so many others saw a node alive, suspect, dead, left."""

    at_s: float
    alive: int
    suspect: int
    dead: int
    left: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One node over time: how it was seen, and what it really was ("running", "stopped or slow", "down")."""

    node: str
    seen: tuple[Seen, ...]
    truth: tuple[tuple[float, str], ...]


@dataclass(slots=True, kw_only=True)
class Journal:
    """See the module's theory."""

    experiment: Experiment
    driver: str
    seed: int
    status: Status = "completed"
    reason: str = ""
    lasted_s: float = 0.0
    took_s: float = 0.0
    violations: list[Violation] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    figures: dict[str, float | None] = field(default_factory=dict)
    sometimes: dict[str, int] = field(default_factory=dict)
    series: dict[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    digest: str = ""

    @property
    def deviated(self) -> bool:
        return bool(self.violations)

    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "format": FORMAT,
            "title": self.experiment.title,
            "driver": self.driver,
            "seed": self.seed,
            "status": self.status,
            "reason": self.reason,
            "deviated": self.deviated,
            "lasted_s": round(self.lasted_s, 3),
            "took_s": round(self.took_s, 3),
            "violations": [_plain(each) for each in self.violations],
            "figures": self.figures,
            "sometimes": {name: count for name, count in self.sometimes.items() if count},
            "happened": [_plain(each) for each in self.happened],
            "lanes": [
                {
                    "node": lane.node,
                    "truth": [list(step) for step in lane.truth],
                    "seen": [[s.at_s, s.alive, s.suspect, s.dead, s.left] for s in lane.seen],
                }
                for lane in self.lanes
            ],
            "series": {name: [list(point) for point in points] for name, points in self.series.items()},
            "digest": self.digest,
            "experiment": self.experiment.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        }

    def json(self) -> str:
        return json.dumps(self.data(), indent=1)


def _plain(each: Violation | Happened) -> Mapping[str, Any]:
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name in each.__slots__
        if (value := getattr(each, name)) != ""
    }


class JournalError(Exception):
    """The file is no journal of a run; the message names it."""


JOURNAL_BYTES_MAX: Final = 64 * 1024 * 1024


def read_journal(path: Path) -> Journal:
    """What `Journal.json` wrote. Raises JournalError."""
    try:
        given = json.loads(read_text(path, bytes_max=JOURNAL_BYTES_MAX))
    except YamlFileError as error:
        raise JournalError(str(error)) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise JournalError(f"{path}: is not JSON: {error}") from error
    if not isinstance(given, dict) or given.get("format") != FORMAT:
        raise JournalError(f"{path}: is no journal of a chaos run (format {FORMAT})")
    try:
        return Journal(
            experiment=read(given["experiment"], f"{path}: experiment"),
            driver=str(given["driver"]),
            seed=int(given["seed"]),
            status=_status(given["status"]),
            reason=str(given["reason"]),
            lasted_s=float(given["lasted_s"]),
            took_s=float(given["took_s"]),
            violations=[Violation(**each) for each in given["violations"]],
            happened=[Happened(**{**each, "nodes": tuple(each["nodes"])}) for each in given["happened"]],
            lanes=[
                Lane(
                    node=lane["node"],
                    seen=tuple(
                        Seen(at_s=s[0], alive=s[1], suspect=s[2], dead=s[3], left=s[4]) for s in lane["seen"]
                    ),
                    truth=tuple((float(at_s), str(truth)) for at_s, truth in lane["truth"]),
                )
                for lane in given["lanes"]
            ],
            figures=dict(given["figures"]),
            sometimes=dict(given["sometimes"]),
            series={name: [(p[0], p[1]) for p in points] for name, points in given["series"].items()},
            digest=str(given["digest"]),
        )
    except ExperimentError as error:
        raise JournalError(str(error)) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise JournalError(
            f"{path}: is no journal of a chaos run: {type(error).__name__}: {error}"
        ) from error


def _status(given: object) -> Status:
    match given:
        case "completed" | "failed" | "aborted":
            return given
    raise ValueError(f"status {given!r}")
