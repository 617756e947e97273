"""What a peer can be asked about rollovers: to begin one, how far it is, and what is wrong with it.

Invariant: nothing here holds state of its own; what raises has changed nothing, but `begin` when its time is over.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from peer.api import ApiError, Json
from peer.io.keys import KeyFileError
from peer.rollover import TELL_S
from trust.errors import TrustError, span
from trust.identity import format_id
from trust.rolling import request_rollover
from trust.rollover import COMPROMISED_S, Terms, name_of
from trust.roots import GIVEN_UP

if TYPE_CHECKING:
    from peer.daemon import Daemon

NAMES_MAX: Final = 20  # of peers that have not heard


async def begin(daemon: "Daemon", overlap_s: float | None, *, compromised: bool, timeout_s: float) -> Json:
    """Have a new root made; waits for `timeout_s` until the old one has named it, and all goes on by itself from there.
    `overlap_s` is what is configured, if None. Raises ApiError."""
    record, roots = daemon.custody.record, daemon.membership.roots
    credential = daemon.certifier.member.credential
    if not credential.govern:
        raise ApiError(f"{credential.name} may not ask for a new root: only nodes that govern may", code=2)
    if record is None:
        raise ApiError("this peer does not know yet who signs for the mesh")
    if (under_way := status(daemon)) is not None and under_way["phase"] != "overlap":
        raise ApiError(
            "the mesh is on its way to a new root already: see gossamer ca status, and wait for it, or end it with "
            "gossamer ca reshare before the old root has named it",
            code=2,
        )
    length_s = COMPROMISED_S if compromised else daemon.config.ca.rollover_overlap_s
    if overlap_s is not None:
        length_s = overlap_s
    known = roots.newest
    try:
        request = request_rollover(
            daemon.identity,
            credential,
            record,
            daemon.clock.now(),
            overlap_s=int(length_s),
            compromised=compromised,
        )
        asked = await daemon.rollover.ask(request)
    except TrustError as error:
        raise ApiError(str(error), code=2) from error
    except KeyFileError as error:
        raise ApiError(str(error)) from error
    try:
        async with asyncio.timeout(timeout_s):
            while roots.newest == known and (not asked or daemon.rollover.request is not None):
                await _moved(daemon)
                if not asked:
                    daemon.rollover.pass_on(request)
    except TimeoutError:
        raise ApiError(_waiting_for(daemon, timeout_s), code=3) from None
    step = roots.step_from(known)
    if step is None:
        raise ApiError("the rollover came to nothing: the signers changed, or its request ended; ask again")
    return _row(daemon, step.terms, "announced")


async def _moved(daemon: "Daemon") -> None:
    """Until something may be different, a while at most: what is passed on may be lost."""
    try:
        async with asyncio.timeout(TELL_S):
            await daemon.rootline.until_moved()
    except TimeoutError:
        return


def status(daemon: "Daemon") -> Json | None:
    """How far the rollover is that is under way, as far as is known here; None for none.

    Phases: `making` (a ceremony), `signing` (the old root is asked to name the new one), `announced` (both count, the
    old one signs), `overlap` (both count, the new one signs).
    """
    roots, request = daemon.membership.roots, daemon.rollover.request
    now = daemon.clock.now()
    step = roots.step_from(daemon.custody.root)
    if step is not None:
        return _row(daemon, step.terms, "announced")
    if request is not None and roots.newest == request.old:
        return {
            "phase": "making" if daemon.custody.next is None else "signing",
            "old": name_of(request.old),
            "new": "" if daemon.custody.next is None else name_of(daemon.custody.next.after.group.public),
            "compromised": request.compromised,
            "awaited": [_name(daemon, node) for node in daemon.rollover.awaited],
            "problem": _hindered(daemon),
        }
    if roots.rollovers and now < roots.rollovers[-1].terms.ends_at:
        return _row(daemon, roots.rollovers[-1].terms, "overlap")
    return None


def _hindered(daemon: "Daemon") -> str:
    """What keeps a rollover from coming about, as far as is known here."""
    if rival := daemon.rollover.rival:
        return (
            f"{rival} asks for another one at the same time, and signers that heard that first wait for it; if none "
            "comes of either, gossamer ca reshare on a signer ends both"
        )
    return daemon.rollover.problem


def problem(daemon: "Daemon") -> tuple[str, str, str]:
    """(what is wrong, what is to be said if nothing is, how bad) for `check`."""
    if lies := daemon.membership.roots.conflicts:
        followed, other = lies[0]
        words = (
            f"signers of the root {name_of(followed.terms.old)} named two successors, which proves that some of them "
            f"lied: {name_of(followed.terms.new)}, which is followed here, and {name_of(other.terms.new)}; make other "
            "peers signers"
        )
        return words, "", "fail"
    if GIVEN_UP in daemon.rootline.problem:
        return daemon.rootline.problem, "", "fail"
    now = daemon.clock.now()
    where = status(daemon)
    if where is None:
        return "", "one root counts", "ok"
    if where["phase"] in {"making", "signing"}:
        why = f": {where['problem']}" if where["problem"] else ""
        return f"a new root is being made{why}", "", "warn"
    waiting = where["waiting"]
    left = span(max(0.0, float(where["endsAt"]) - now))
    words = f"the root {where['new']} follows on {where['old']}, which counts for another {left}"
    if where["compromised"]:
        words += " and was given up as compromised: who is away by then joins again with a token"
    if waiting:
        return f"{words}; not heard of at: {', '.join(waiting[:5])}", "", "warn"
    if where["compromised"]:
        return words, "", "warn"
    return "", words, "ok"


def inability(daemon: "Daemon") -> str:
    """What keeps this signer from its part in rollovers; "" for nothing, and where it is no signer."""
    if not daemon.outlook.signs:
        return ""
    if daemon.votes is None:
        return (
            "it names no successor of the root: which one it has named before, keys/rollover-vote, cannot be read; "
            "let another peer sign in its place, or remove the file and start again if it has named none"
        )
    if daemon.rollover.barred:
        return (
            "it takes no part in making the new root: what it said before, keys/rollover.key, cannot be read"
        )
    return ""


def waiting_count(daemon: "Daemon") -> int:
    """Members that live and have not said that they accept the newest root, while an older one counts."""
    return len(daemon.rootline.waiting()) if status(daemon) is not None else 0


def _row(daemon: "Daemon", terms: Terms, phase: str) -> Json:
    waiting = daemon.rootline.waiting()
    return {
        "phase": phase,
        "old": name_of(terms.old),
        "new": name_of(terms.new),
        "compromised": terms.compromised,
        "switchAt": terms.switch_at,
        "endsAt": terms.ends_at,
        "waiting": sorted(member.name for member in waiting)[:NAMES_MAX],
        "waitingCount": len(waiting),
        "problem": "",
    }


def _waiting_for(daemon: "Daemon", timeout_s: float) -> str:
    awaited = ", ".join(_name(daemon, node) for node in daemon.rollover.awaited)
    why = f", waiting for {awaited}" if awaited else ""
    if daemon.rollover.problem:
        why += f": {daemon.rollover.problem}"
    return f"there is no new root within {timeout_s:g} s; it goes on{why}"


def _name(daemon: "Daemon", node: bytes) -> str:
    member = daemon.node.engine.member(node)
    return member.name if member is not None and member.name else format_id(node)
