"""Whom a leader lets take part: those who are there, without pairs of which one waits for the other in vain.

Silence convicts nobody: when A says that nothing came from Z, either may be at fault. But honest nodes that reach each
other do not blame each other for long, so they are an independent set in the graph of blames, and whoever makes an
honest node wait has an edge to it. The leader takes nodes from the least blamed on, each if it has no edge to one
taken already; among equals another one comes first in each attempt, so that a liar that quarrels with one honest node
costs at most that node's place in this epoch. When too few are left that way, the least blamed do that are enough, or
everybody.

Who waits for somebody cannot go on itself: blame of a node that blames others in turn does not count, for what it
does not send may be what it has been waiting for. A liar that blames an honest node to get off thereby makes an edge
itself.

Invariant: what is chosen passes `check_opening` at every elector that knows the same nodes and the same rules, and has
been waiting for the same ones in vain.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from trust.ceremony.bearing import check_change
from trust.ceremony.bodies import Opening
from trust.ceremony.electorate import Electorate, by_id
from trust.ceremony.events import Members
from trust.ceremony.growth import SignerRules
from trust.errors import CeremonyError
from trust.identity import node_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Dealers (node ids), receivers (public keys) and the threshold among them."""

    threshold: int
    dealers: tuple[bytes, ...]
    receivers: tuple[bytes, ...]


def select(
    electorate: Electorate,
    rules: SignerRules,
    *,
    wanted: Iterable[bytes],
    able: Iterable[bytes],
    blames: Mapping[bytes, Collection[bytes]],
    convicted: Collection[bytes],
    attempt: int,
) -> Choice | None:
    """What to open `attempt` with; None if too few are there. `wanted` (public keys) are to receive: at a founding, the
    founders that are there; `able` (node ids) can deal. `blames` says who blames whom, by node id."""
    edges = {
        (blamer, each)
        for blamer, whom in blames.items()
        for each in whom
        if not blames.get(each) or blamer in blames[each]
    }
    keys = {node_id(key): key for key in by_id(wanted)}
    dealing = set(able)
    nodes = _by_blame(set(keys) | dealing, edges, attempt)
    founds = electorate.group is None
    least = _least_founders(electorate, nodes, convicted) if founds else nodes
    for allowed in (_independent(nodes, edges), least, nodes):
        if founds:
            choice = _founders(electorate, rules, allowed, keys, convicted)
        else:
            choice = _signers(electorate, rules, allowed, keys, dealing)
        if choice is not None:
            return choice
    return None


def _founders(
    electorate: Electorate,
    rules: SignerRules,
    allowed: list[bytes],
    keys: Mapping[bytes, bytes],
    convicted: Collection[bytes],
) -> Choice | None:
    """All of `allowed` deal to all of them, if they are a quorum."""
    if not allowed or not electorate.decided(allowed, convicted):
        return None
    return Choice(
        threshold=rules.threshold_of(len(allowed)),
        dealers=tuple(sorted(allowed)),
        receivers=by_id(keys[node] for node in allowed),
    )


def _signers(
    electorate: Electorate,
    rules: SignerRules,
    allowed: list[bytes],
    keys: Mapping[bytes, bytes],
    dealing: Collection[bytes],
) -> Choice | None:
    """As many of `allowed` as the old threshold says deal to those of them that are wanted."""
    assert electorate.group is not None, "signers reshare a key that exists"
    receivers = by_id(keys[node] for node in allowed if node in keys)
    dealers = [node for node in allowed if node in dealing][: electorate.group.threshold]
    threshold = rules.threshold_of(len(receivers)) if receivers else 0
    if len(dealers) < electorate.group.threshold or threshold < least_threshold(electorate, rules):
        return None
    return Choice(threshold=threshold, dealers=tuple(sorted(dealers)), receivers=receivers)


def _least_founders(electorate: Electorate, nodes: list[bytes], convicted: Collection[bytes]) -> list[bytes]:
    """The least blamed that are a quorum, and no more."""
    for count in range(1, len(nodes)):
        if electorate.decided(nodes[:count], convicted):
            return nodes[:count]
    return nodes


def least_threshold(electorate: Electorate, rules: SignerRules) -> int:
    """No smaller threshold comes about by whom a leader leaves out: today's, or that of the goal if it is less."""
    today = 1 if electorate.group is None else electorate.group.threshold
    return min(today, rules.threshold_of(rules.goal))


def check_opening(
    opening: Opening,
    electorate: Electorate,
    rules: SignerRules,
    *,
    seen: Members,
    convicted: Collection[bytes],
    excused: Collection[bytes] = (),
) -> None:
    """Raise CeremonyError unless this elector can bear what a leader chose, among the members it sees. `excused` (node
    ids) may be left out for what they did in this ceremony, `convicted` have to be."""
    ids = set(opening.receiver_ids)
    if unwanted := ids & (seen.barred | set(convicted)):
        raise CeremonyError(f"{len(unwanted)} of the new signers are revoked or convicted")
    if opening.threshold != rules.threshold_of(len(ids)):
        raise CeremonyError(
            f"the threshold of {len(ids)} signers is not {opening.threshold} by the rules here"
        )
    if electorate.group is None:
        if set(opening.dealers) != ids or not ids <= set(electorate.ids):
            raise CeremonyError("founders deal to founders, all of them to each")
        if not electorate.decided(ids, convicted):
            raise CeremonyError(f"{len(ids)} founders are too few, {electorate.quorum} are needed")
        return
    if len(opening.dealers) != electorate.group.threshold or not set(opening.dealers) <= set(electorate.ids):
        raise CeremonyError("exactly as many signers as the threshold says deal")
    if not ids <= seen.known | set(electorate.ids):
        raise CeremonyError("one of the new signers is not known here as one that may sign")
    if opening.threshold < least_threshold(electorate, rules):
        raise CeremonyError(f"the threshold would fall to {opening.threshold}")
    judged = replace(seen, barred=seen.barred | set(convicted))
    check_change(ids, opening.threshold, electorate, rules, judged, excused=excused)


def _by_blame(nodes: Collection[bytes], edges: set[tuple[bytes, bytes]], attempt: int) -> list[bytes]:
    """The least blamed first; among equals another one in each attempt."""
    ordered = sorted(nodes)
    at = attempt % len(ordered) if ordered else 0
    blamed = {node: sum(1 for a, b in edges if b == node and a in nodes) for node in ordered}
    return sorted(ordered[at:] + ordered[:at], key=lambda node: blamed[node])


def _independent(nodes: list[bytes], edges: set[tuple[bytes, bytes]]) -> list[bytes]:
    chosen: list[bytes] = []
    for node in nodes:
        if all((node, other) not in edges and (other, node) not in edges for other in chosen):
            chosen.append(node)
    return chosen
