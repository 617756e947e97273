"""Chaos Toolkit's experiments, where they and ours say the same.

`export` writes an experiment as Chaos Toolkit's JSON: each fault is an action whose provider is `chaos.actions`, each
invariant that can be asked of a running mesh a probe of `chaos.probes`, and the pauses between them make the timeline;
whatever still stands when it is over is ended by the rollbacks. `read_toolkit` takes back what was written by it; of
somebody else's experiment it takes what names our module, and says by name what it leaves out: a
fault that is dropped silently is a test that did not happen.

Chaos Toolkit runs a method one activity after the other, so overlapping faults become actions that begin and actions
that end. The format: https://chaostoolkit.org/reference/api/experiment/

Invariant: `read_toolkit(export(e)) == e` for everything but what Chaos Toolkit has no word for, which stands in
`configuration`.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from chaos.actions import DIRECTORIES
from chaos.experiment import Experiment, ExperimentError, read
from chaos.plan import moments
from chaos.probes import SEES

VERSION: Final = "1.0.0"
MODULE: Final = "chaos.actions"
PROBES: Final = "chaos.probes"
CONFIGURATION: Final = "gossamer"
ENDED: Final = ("pause", "slow", "descriptors")  # what stands for ever unless somebody ends it


def export(experiment: Experiment, directories: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A resolved experiment as Chaos Toolkit's JSON. `directories`: the data directory of each node's peer."""
    plain = experiment.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    method: list[dict[str, Any]] = []
    at_s = 0.0
    events = plain.pop("method", [])
    for moment in moments(experiment.method):
        if moment.at_s > at_s and method:
            method[-1]["pauses"] = {"after": round(moment.at_s - at_s, 6)}
        elif moment.at_s > at_s:
            method.append(_activity("action", "wait", MODULE, "wait", {"seconds": moment.at_s}))
        at_s = moment.at_s
        event = experiment.method[moment.number]
        function = "begin" if moment.begins else "end"
        method.append(
            _activity(
                "action",
                f"{function} {event.inject.fault} #{moment.number}",
                MODULE,
                function,
                {"number": moment.number, "fault": events[moment.number]},
            )
        )
    hypothesis = plain.pop("steady-state-hypothesis", {})
    return {
        "version": VERSION,
        "title": plain.pop("title"),
        "description": plain.pop("description", "") or experiment.title,
        "tags": plain.pop("tags", []),
        "configuration": {
            CONFIGURATION: plain | {"hypothesis": hypothesis},
            DIRECTORIES: dict(directories or {}),
        },
        "steady-state-hypothesis": {
            "title": experiment.hypothesis.title,
            "probes": [
                {
                    **_activity("probe", invariant.value, PROBES, "holds",
                                {"invariant": invariant.value, "within_s": experiment.hypothesis.within}),
                    "tolerance": True,
                }
                for invariant in SEES
                if invariant in experiment.hypothesis.judged
            ],
        },
        "method": method,
        "rollbacks": [
            _activity("action", f"{function} {fault['fault']} #{number}", MODULE, function,
                      {"number": number, "fault": fault})
            for function, number, fault in (
                *(("end", number, events[number]) for number, event in enumerate(experiment.method)
                  if event.lasts is None and event.inject.fault in ENDED),
                *(("begin", len(events) + number, fault)
                  for number, fault in enumerate(plain.get("rollbacks", []))),
            )
        ],
    }  # fmt: skip


def _activity(
    kind: str, name: str, module: str, function: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "type": kind,
        "name": name,
        "provider": {"type": "python", "module": module, "func": function, "arguments": dict(arguments)},
    }


def read_toolkit(text: str, source: str) -> tuple[Experiment, tuple[str, ...]]:
    """An experiment, and what of the file it leaves out, in words. Raises ExperimentError."""
    try:
        given = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ExperimentError(f"{source}: is not JSON: {error}") from error
    if not isinstance(given, dict) or not isinstance(given.get("method", []), list):
        raise ExperimentError(f"{source}: is no experiment of Chaos Toolkit: it has no method")
    left_out: list[str] = []
    events: dict[int, Any] = {}
    for place, activity in enumerate(given.get("method", [])):
        event = _taken(activity)
        if event is None:
            left_out.append(f"method[{place}]: {_name(activity)} is not of this mesh")
        elif event[1] is not None:
            events.setdefault(event[0], event[1])
    rollbacks = given.get("rollbacks") or []
    if not isinstance(rollbacks, list):
        raise ExperimentError(f"{source}: rollbacks: a list is expected")
    left_out += [
        f"rollbacks[{place}]: {_name(each)} is not of this mesh"
        for place, each in enumerate(rollbacks)
        if _taken(each) is None
    ]
    configuration = given.get("configuration")
    own = configuration.get(CONFIGURATION) if isinstance(configuration, dict) else None
    if not isinstance(own, dict):
        raise ExperimentError(f"{source}: configuration.{CONFIGURATION} is missing: no topology is known")
    plain = {name: value for name, value in own.items() if name != "hypothesis"}
    if own.get("hypothesis"):
        plain["steady-state-hypothesis"] = own["hypothesis"]
    plain["title"] = given.get("title")
    if given.get("description") not in (None, given.get("title")):
        plain["description"] = given["description"]
    if given.get("tags"):
        plain["tags"] = given["tags"]
    if events:
        plain["method"] = [events[number] for number in sorted(events)]
    return read(plain, source), tuple(left_out)


def _taken(activity: Any) -> tuple[int, Any] | None:
    """(number, fault) of an action of ours, with None where it begins nothing; None for one that is not ours."""
    provider = activity.get("provider") if isinstance(activity, dict) else None
    if not isinstance(provider, dict) or provider.get("module") != MODULE:
        return None
    arguments = provider.get("arguments")
    number = arguments.get("number") if isinstance(arguments, dict) else None
    if provider.get("func") == "begin" and isinstance(arguments, dict) and isinstance(number, int):
        return number, arguments.get("fault")
    return -1, None


def _name(activity: Any) -> str:
    return repr(activity.get("name", "an activity")) if isinstance(activity, dict) else "what is there"
