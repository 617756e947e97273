"""What can be asked of a running mesh of this machine: plain functions that answer yes or no, and change nothing.

A peer is named by its data directory; one that runs and does not answer makes the answer no.

Invariant: a probe asks through admin.sock and writes nothing.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from chaos.actions import DIRECTORIES, ActionError
from chaos.hypothesis import Invariant
from chaos.processes import NoPeer, peer_of
from peer.admin.client import AdminClient, ClientError
from peer.commands.kinds import KINDS

LOOK_EVERY_S: Final = 0.2
SEES: Final = (Invariant.VIEWS, Invariant.JOURNALS)  # what `holds` can answer


def views_agree(data_dirs: Sequence[str | Path], within_s: float = 0.0) -> bool:
    """Whether every peer that runs there sees all that run there alive, and nobody else."""
    return _in_time(within_s, lambda: _views_agree(_running(data_dirs)))


def policy_held(
    data_dirs: Sequence[str | Path], kind: str, namespace: str, name: str, within_s: float = 0.0
) -> bool:
    """Whether every peer that runs there has that policy, in the same words."""
    return _in_time(within_s, lambda: _held(_running(data_dirs), kind, namespace, name))


def policies_agree(data_dirs: Sequence[str | Path], within_s: float = 0.0) -> bool:
    """Whether all peers that run there have the same policies."""
    return _in_time(within_s, lambda: _policies_agree(_running(data_dirs)))


def holds(invariant: str, within_s: float = 0.0, configuration: Mapping[str, Any] | None = None) -> bool:
    """Whether an invariant of an experiment holds in the mesh whose data directories `configuration` names. Raises
    ActionError for one that cannot be asked of a mesh from outside."""
    known = (configuration or {}).get(DIRECTORIES)
    if not isinstance(known, Mapping):
        raise ActionError(
            f"configuration.{DIRECTORIES} is missing: it says where each node's data directory is"
        )
    directories = [Path(str(path)) for path in known.values()]
    if invariant == Invariant.VIEWS.value:
        return views_agree(directories, within_s)
    if invariant == Invariant.JOURNALS.value:
        return policies_agree(directories, within_s)
    raise ActionError(
        f"{invariant} cannot be asked of a running mesh: {', '.join(each.value for each in SEES)} can"
    )


def _in_time(within_s: float, holding: Any) -> bool:
    until = time.monotonic() + within_s
    while not holding():
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_EVERY_S)
    return True


def _running(data_dirs: Sequence[str | Path]) -> list[AdminClient]:
    found = []
    for each in map(Path, data_dirs):
        try:
            peer_of(each)
        except NoPeer:
            continue
        found.append(AdminClient(each))
    return found


def _views_agree(peers: Sequence[AdminClient]) -> bool:
    try:
        names = {str(peer.health()["name"]) for peer in peers}
        views = [{str(row["name"]): str(row["state"]) for row in peer.members()} for peer in peers]
    except ClientError:
        return False
    live = [{name for name, state in view.items() if state in ("alive", "suspect")} for view in views]
    return all(each == names for each in live) and not any("suspect" in view.values() for view in views)


def _held(peers: Sequence[AdminClient], kind: str, namespace: str, name: str) -> bool:
    try:
        answers = {_words(peer.get(kind, namespace, name)) for peer in peers}
    except ClientError:
        return False
    return len(answers) == 1 and answers != {"[]"}


def _policies_agree(peers: Sequence[AdminClient]) -> bool:
    try:
        answers = {tuple(_words(peer.get(kind)) for kind in KINDS) for peer in peers}
    except ClientError:
        return False
    return len(answers) <= 1


def _words(rows: Sequence[Mapping[str, Any]]) -> str:
    """What policies say, without what a peer adds of its own."""
    said = [
        [row["kind"], row["metadata"].get("namespace"), row["metadata"]["name"], row.get("spec")]
        for row in rows
    ]
    return json.dumps(sorted(said, key=lambda each: [str(part) for part in each]), sort_keys=True)
