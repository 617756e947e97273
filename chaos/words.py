"""What happens, in words: for progress bars, explanations and reports. The words name nodes, never numbers of hosts.

Invariant: one fault has the same words everywhere.
"""

from typing import Any, Final

from chaos.experiment import Event, Experiment
from chaos.fault import Join, Partition, Signers
from chaos.values import written_s

NAMES_MAX: Final = 4
_SAID: Final = {"fault", "pick", "groups"}
_BARE: Final = {"how", "lie", "effect"}  # their values say enough


def nodes_of(event: Event) -> tuple[str, ...]:
    """Whom a resolved event means; of a partition the smaller side."""
    inject = event.inject
    if isinstance(inject, Partition):
        return min(inject.groups, key=len) if len(inject.groups) > 1 else ()
    pick = getattr(inject, "pick", None)
    return pick.nodes if pick is not None else ()


def label_of(event: Event) -> str:
    """A fault in a few words: "loss share 30%", "partition bridge (n3)"."""
    inject = event.inject
    plain: dict[str, Any] = inject.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    parts: list[str] = [inject.fault]
    if isinstance(inject, Partition):
        parts.append(inject.shape.value)
        plain.pop("shape", None)
    for name, value in plain.items():
        if name in _BARE:
            parts.insert(1, _value(value))
        elif value is True:
            parts.append(name)
        elif name == inject.fault:
            parts.append(_value(value))
        elif name not in _SAID:
            parts.append(f"{name} {_value(value)}")
    return " ".join(parts)


def _value(value: Any) -> str:
    if isinstance(value, float) and 0 < value <= 1:
        return f"{value:.0%}"
    if isinstance(value, list):
        return named(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def named(nodes: tuple[str, ...] | list[str]) -> str:
    """Names, shortened where there are many."""
    shown = ", ".join(nodes[:NAMES_MAX])
    return f"{shown} and {len(nodes) - NAMES_MAX} more" if len(nodes) > NAMES_MAX else shown


def timeline_lines(experiment: Experiment) -> list[tuple[str, str, str, str]]:
    """(at, until, what, whom) of a resolved experiment, in order."""
    rows = []
    for event in sorted(experiment.method, key=lambda each: each.at):
        until = "" if event.ends is None else written_s(event.ends)
        inject = event.inject
        if isinstance(inject, Partition) and len(inject.groups) > 1:
            whom = " | ".join(named(group) for group in inject.groups)
        elif isinstance(inject, Join | Signers):
            whom = "newcomers" if isinstance(inject, Join) else "signers"
        else:
            whom = named(nodes_of(event)) or "all"
        rows.append((written_s(event.at), until, label_of(event), whom))
    return rows
