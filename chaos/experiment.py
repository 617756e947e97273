"""An experiment: a mesh, what it does, what is done to it, and what must hold. One YAML file, read by every driver.

The nouns are Chaos Toolkit's (title, description, tags, method, steady-state hypothesis, rollbacks) where both mean the
same; `chaos/toolkit.py` turns one into the other where it can. A method here is a timeline: each entry is a fault with
`at` and `for`, and may overlap any other.

    title: Two halves and a bridge
    drivers: [sim, netns]
    topology: {nodes: 7}
    method:
      - {at: 5s, for: 30s, fault: partition, shape: bridge}
    steady-state-hypothesis:
      within: 10s
      invariants: [views-agree, nothing-acknowledged-is-lost]

Every fault is undone when its time is over, and whatever still stands when the timeline ends, in order or not, is
undone then; `rollbacks` are further entries for what happens after that, before the hypothesis is judged.

Invariant: an `Experiment` exists only if all of its file is understood; the error names file and field. Nothing here
knows a driver.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import Field, ValidationError, model_serializer, model_validator

from chaos.fault import Fault
from chaos.hypothesis import OF_SIGNERS, Hypothesis, Invariant
from chaos.values import Model, NodeName, Seconds, Share
from peer.yamlfile import YamlFileError, read_text
from proxy.resources import ResourceError, load_yaml
from proxy.resources.wording import problems_of
from trust.credential import CREDENTIAL_TTL_S, CREDENTIAL_TTL_S_MAX

FORMAT: Final = 1
NODES_MAX: Final = 10_000
RESTARTED_S: Final = 2.0  # a node that is asked to end does, and comes again
METHOD_MAX: Final = 1_000
SIGNERS_MAX: Final = 16
CERTIFICATES_S_MIN: Final = 10.0
_LIFTED: Final = re.compile(r"\.inject(\.[a-z-]+(?=[.:]))?")  # the file knows no such level
DRIVERS: Final = ("sim", "netns", "process", "toxiproxy")

DriverName = Literal["sim", "netns", "process", "toxiproxy"]


class ExperimentError(Exception):
    """The file is no experiment; each line names the file and the field."""

    def __init__(self, *lines: str) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


# ------------------------------------------------------------------ the mesh and what it does


class Link(Model):
    """How far two zones are apart, one way."""

    between: tuple[str, str]
    delay: Seconds = 0.0
    jitter: Seconds = 0.0
    loss: Share = 0.0


class Service(Model):
    """An HTTP service and the nodes that run a copy of it."""

    name: NodeName
    on: tuple[NodeName, ...] = Field(min_length=1)


class Topology(Model):
    """Nodes n0, n1, …; `zones` divides them in that order. `start`: `warm` begins with nodes that know one another.
    With `signers` the first so many hold the mesh's root in shares, and a majority of them renews everybody's
    certificates, which live for `certificates`."""

    nodes: int = Field(default=0, ge=0, le=NODES_MAX)
    zones: dict[str, int] = Field(default_factory=dict, max_length=64)
    profile: Literal["lan", "wan", "local", "memberlist"] = "lan"
    start: Literal["warm", "cold"] = "warm"
    seeds: int = Field(default=2, ge=1, le=16)
    services: tuple[Service, ...] = ()
    links: tuple[Link, ...] = ()
    signers: int = Field(default=0, ge=0, le=SIGNERS_MAX)
    certificates: Seconds = Field(default=CREDENTIAL_TTL_S, ge=CERTIFICATES_S_MIN, le=CREDENTIAL_TTL_S_MAX)

    @model_validator(mode="after")
    def _agrees(self) -> "Topology":
        total = sum(self.zones.values())
        if any(count < 1 for count in self.zones.values()):
            raise ValueError("a zone has at least one node")
        if self.zones and self.nodes not in (0, total):
            raise ValueError(f"the zones have {total} nodes together, nodes says {self.nodes}")
        if self.size < 2:
            raise ValueError("a mesh has at least 2 nodes: give nodes or zones")
        if self.signers > self.size:
            raise ValueError(f"{self.signers} signers are more than the {self.size} nodes there are")
        for link in self.links:
            for zone in link.between:
                if zone not in self.zones:
                    raise ValueError(f"links: there is no zone {zone!r}")
        for service in self.services:
            for name in service.on:
                if name not in self.names:
                    raise ValueError(f"services: {service.name} runs on {name!r}, which is no node")
        return self

    @property
    def size(self) -> int:
        return sum(self.zones.values()) or self.nodes

    @property
    def names(self) -> tuple[str, ...]:
        """Of all nodes there are at the beginning."""
        return tuple(f"n{index}" for index in range(self.size))

    def zone_of(self, index: int) -> str:
        """The zone of the node with that number."""
        for zone, count in self.zones.items():
            if index < count:
                return zone
            index -= count
        return ""


class Policies(Model):
    """Somebody edits one of `keys` policies every so often; a share of the edits are deletions."""

    every: Seconds = Field(gt=0)
    keys: int = Field(default=10, ge=1, le=10_000)
    deletes: Share = 0.0
    size: int = Field(default=200, ge=1, le=60_000)


class Requests(Model):
    """So many requests a second from each of these nodes to a service."""

    service: NodeName
    source: tuple[NodeName, ...] = Field(alias="from", min_length=1)
    rate: float = Field(gt=0, le=10_000)


class Churn(Model):
    """Somebody is killed every so often and comes again `down` later."""

    every: Seconds = Field(gt=0)
    down: Seconds = 3.0


class Workload(Model):
    """What the mesh does meanwhile."""

    policies: Policies | None = None
    requests: tuple[Requests, ...] = ()
    churn: Churn | None = None


# ------------------------------------------------------------------ the experiment


class Event(Model):
    """A fault and its time. `lasts` ("for"): None for ever, or for what is over at once."""

    at: Seconds
    lasts: Seconds | None = Field(default=None, alias="for")
    inject: Fault

    @model_validator(mode="before")
    @classmethod
    def _lift(cls, given: Any) -> Any:
        """`fault` and its fields stand beside `at` and `for`."""
        if isinstance(given, Mapping) and "inject" not in given:
            own = {key: value for key, value in given.items() if key in ("at", "for")}
            return {**own, "inject": {key: value for key, value in given.items() if key not in own}}
        return given

    @model_serializer(mode="wrap")
    def _flat(self, handler: Any) -> dict[str, Any]:
        plain = dict(handler(self))
        inject = plain.pop("inject")
        return {**plain, "fault": inject.pop("fault", self.inject.fault), **inject}

    @property
    def ends(self) -> float | None:
        return None if self.lasts is None else self.at + self.lasts


class Experiment(Model):
    """See the module's theory."""

    version: Literal[1] = FORMAT
    title: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=4000)
    expect: str = Field(default="", max_length=2000)
    tags: tuple[str, ...] = ()
    seed: int = Field(default=1, ge=0, le=2**63)
    drivers: tuple[DriverName, ...] = Field(default=("sim",), min_length=1)
    topology: Topology
    workload: Workload = Workload()
    method: tuple[Event, ...] = Field(default=(), max_length=METHOD_MAX)
    rollbacks: tuple[Event, ...] = Field(default=(), max_length=METHOD_MAX)
    lasts: Seconds | None = None
    hypothesis: Hypothesis = Field(default=Hypothesis(), alias="steady-state-hypothesis")

    @model_validator(mode="after")
    def _names_are_known(self) -> "Experiment":
        joined = sum(event.inject.count for event in self.method if event.inject.fault == "join")
        known = {f"n{index}" for index in range(self.topology.size + joined)}
        for index, event in enumerate(self.method):
            for name in _named(event):
                if name not in known:
                    raise ValueError(
                        f"method[{index}]: {name!r} is no node: they are n0 to n{len(known) - 1}"
                    )
            pick = getattr(event.inject, "pick", None)
            if pick is not None and pick.zone is not None and pick.zone not in self.topology.zones:
                raise ValueError(f"method[{index}]: there is no zone {pick.zone!r}")
        services = {service.name for service in self.topology.services}
        for requests in self.workload.requests:
            if requests.service not in services:
                raise ValueError(f"workload.requests: there is no service {requests.service!r}")
        return self

    @property
    def judged(self) -> frozenset[Invariant]:
        """What is named, and safety, as far as there is something to judge."""
        judged = self.hypothesis.judged
        return judged if self.topology.signers else judged - OF_SIGNERS

    @property
    def timeline_s(self) -> float:
        """When the last fault begins or ends, or as long as `lasts` says."""
        return max((self.lasts or 0.0, *(self._over(event) for event in self.method)))

    def _over(self, event: Event) -> float:
        if event.inject.fault == "restart":  # one after the other, and each takes its time
            turns = len(event.inject.pick.nodes) or self.topology.size
            return event.at + event.inject.every * turns + RESTARTED_S
        return event.at if event.ends is None else event.ends


def _named(event: Event) -> Iterable[str]:
    inject = event.inject
    if inject.fault == "partition":
        for group in inject.groups:
            yield from group
    if inject.fault == "loss":
        yield from inject.to
    pick = getattr(inject, "pick", None)
    if pick is not None:
        yield from (*pick.nodes, *pick.but)


# ------------------------------------------------------------------ files


def load(path: Path) -> Experiment:
    """Read a file. Raises ExperimentError."""
    try:
        return parse(read_text(path), str(path))
    except YamlFileError as error:
        raise ExperimentError(str(error)) from error


def parse(text: str, source: str) -> Experiment:
    """Read the text of a file called `source`. Raises ExperimentError."""
    try:
        documents = load_yaml(text, source)
    except ResourceError as error:
        raise ExperimentError(*error.problems) from error
    if len(documents) != 1:
        raise ExperimentError(f"{source}: an experiment is one YAML document, not {len(documents)}")
    return read(documents[0], source)


def read(given: Mapping[str, Any], source: str) -> Experiment:
    """An experiment from plain data. Raises ExperimentError."""
    try:
        return Experiment.model_validate(given)
    except ValidationError as error:
        raise ExperimentError(
            *(f"{source}: {_LIFTED.sub('', each)}" for each in problems_of(error, ""))
        ) from error


def dump(experiment: Experiment) -> str:
    """The YAML of an experiment, without what is as it would be anyway."""
    plain = experiment.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
