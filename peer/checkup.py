"""What `gossamer check` looks at: a row for each thing that can be wrong with this peer, or that it knows to be wrong
with the mesh.

Invariant: looking changes nothing, and each row is there whether something is wrong or not, so that scripts find it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from crdt.quarantine import GAP
from gossip.member import State
from peer import changeover
from peer.api import Json
from peer.certify import CREDENTIAL
from peer.daemon import Daemon
from peer.governing import Governing
from peer.notice import Elsewhere
from trust.errors import TrustError
from trust.identity import format_id

NAMED_MAX: Final = 5  # of what is wrong with many
FOUND_MAX: Final = 3  # of what takes a sentence each


def _row(check: str, problem: str, fine: str, level: str = "fail") -> Json:
    return {"check": check, "status": level if problem else "ok", "detail": problem or fine}


def _some(found: Sequence[str]) -> str:
    more = f"; and {len(found) - FOUND_MAX} more" if len(found) > FOUND_MAX else ""
    return "; ".join(found[:FOUND_MAX]) + more


class Checkup:
    """See the module's docstring. `named` is the name of a node, or its id."""

    def __init__(self, daemon: Daemon, governing: Governing, named: Callable[[bytes], str]) -> None:
        self._daemon, self._governing, self._named = daemon, governing, named

    async def rows(self) -> list[Json]:
        """All rows; asks the signers for one of them."""
        return [*self._itself(), *self._policies(), *self._writers(), *self._services(), *await self._root()]

    def _itself(self) -> Iterator[Json]:
        daemon = self._daemon
        yield _row(
            "peer ready",
            "" if daemon.ready.is_set() else not_ready(daemon),
            "certificate held, state exchanged",
        )
        states = [member.state for member in daemon.node.engine.members()]
        dead = states.count(State.DEAD)
        live = len(states) - dead - states.count(State.LEFT)
        yield _row("members", f"{dead} dead, {live} live" if dead else "", f"{live} live", "warn")
        for name, problem, level in self._certificate_problems():
            yield _row(name, problem, "valid", level)
        yield _row("misissuance", self._misissued(), "no certificate that nobody asked for")
        yield _row("issuance log", self._unrecorded(), "every certificate in use is recorded", "warn")
        yield _row("disk", daemon.disk.problem, "writes are durable")
        yield _row(
            "data plane", daemon.dataplane.rejected, f"serves snapshot {daemon.outlook.served_version}"
        )

    def _policies(self) -> Iterator[Json]:
        daemon = self._daemon
        bad = [key for key, status in daemon.dataplane.statuses.items() if not status.accepted]
        problem = f"not in force: {', '.join(bad[:NAMED_MAX])}" if bad else ""
        yield _row("policies", problem, "all in force", "warn")
        aside = [
            f"{key} at {', '.join(each.node_name for each in nodes[:3])}" + (" …" if len(nodes) > 3 else "")
            for key, nodes in elsewhere(daemon).items()
        ]
        problem = f"not in force: {'; '.join(aside[:NAMED_MAX])}" if aside else ""
        yield _row("policies elsewhere", problem, "no other peer has set one aside", "warn")

    def _writers(self) -> Iterator[Json]:
        daemon = self._daemon
        expelled = sorted(daemon.journal.forks, key=format_id)
        names = ", ".join(self._known_as(each) for each in expelled[:NAMED_MAX])
        problem = f"equivocated, so that nothing they published is in force: {names}" if expelled else ""
        yield _row("expelled", problem, "no member has equivocated", "warn")
        lies = [f"{self._named(writer)}: {how}" for writer, how in daemon.outlook.contradicting()]
        yield _row("contradictions", _some(lies), "no member contradicts itself", "warn")
        gaps, waits = [], []
        for (writer, why), count in daemon.outlook.waiting_records().most_common():
            of_writer = f"{count} of {self._named(writer)}"
            if why == GAP:
                gaps.append(of_writer)
            else:
                waits.append(f"{of_writer}: {why}")
        held = f"held back until those before them come: {', '.join(gaps[:FOUND_MAX])}"
        problem = f"waiting: {'; '.join(waits[:FOUND_MAX])}" if waits else ""
        yield _row("records", problem, held if gaps else "none has to wait", "warn")
        conflicts = daemon.folder.conflicts()
        problem = f"concurrent edits: {', '.join(conflicts[:NAMED_MAX])}" if conflicts else ""
        yield _row("conflicts", problem, "none", "warn")

    def _services(self) -> Iterator[Json]:
        daemon = self._daemon
        failing = [
            f"{ns}/{name}" for (ns, name), health in daemon.local.health.items() if health == "failing"
        ]
        problem = f"failing: {', '.join(failing[:NAMED_MAX])}" if failing else ""
        yield _row("local services", problem, "none failing", "warn")
        problems = daemon.files.problems
        yield _row("service files", problems[0] if problems else "", "all read")

    async def _root(self) -> list[Json]:
        fine = "nothing is in the way of its part" if self._daemon.outlook.signs else "this peer is none"
        signer = _row("signer", self._governing.signer_problem(), fine, "warn")
        problem, fine, level = changeover.problem(self._daemon)
        root = _row("root", problem, fine, level)
        problem, level = await self._governing.issuance_problem()
        return [signer, root, _row("issuance", problem, "signers answer", level)]

    def _known_as(self, node: bytes) -> str:
        name, id_ = self._named(node), format_id(node)
        return f"{name} ({id_})" if name != id_ else id_

    # ------------------------------------------------------------------ certificates

    def _unrecorded(self) -> str:
        """Certificates in use that no signer has recorded, and who recorded what the root never signed."""
        found = [
            f"no signer has recorded the certificate of {each.svid.spiffe} with serial {each.svid.serial.hex()}"
            for each in self._daemon.issuances.unrecorded()
        ]
        found += [
            f"{self._named(writer)} has recorded certificates that the root did not sign"
            for writer in sorted(self._daemon.issuances.log.liars)
        ]
        return _some(found)

    def _misissued(self) -> str:
        """What the root signed, and the node it is made out to did not ask for."""
        return _some(
            [
                f"{self._named(node)} did not ask for the certificate of {svid.spiffe} with serial "
                f"{svid.serial.hex()}"
                for node, svid in self._daemon.sightings.standing()
            ]
        )

    def _certificate_problems(self) -> Iterator[tuple[str, str, str]]:
        """(check, problem or "", how bad) of each certificate and of the credential."""
        daemon = self._daemon
        for identity in (*sorted(daemon.outlook.wanted_identities()), CREDENTIAL):
            standing = daemon.certifier.standing(identity)
            named = identity.removeprefix("spiffe://")
            yield f"certificate {named}" if named != identity else named, standing.words, standing.level
        try:
            daemon.revocations.check_credential(daemon.certifier.member.credential)
        except TrustError as error:
            yield "membership", f"this node is no member any more: {error}", "fail"


def elsewhere(daemon: Daemon) -> Mapping[str, tuple[Elsewhere, ...]]:
    """Where else which policies are not in force."""
    return daemon.folder.quarantines(daemon.node.engine.members(), but=daemon.identity.id)


def not_ready(daemon: Daemon) -> str:
    """What a peer that is not ready waits for."""
    if daemon.stopping:
        return "stopping"
    if daemon.outlook.node_spiffe not in daemon.certifier.held:
        failure = daemon.certifier.failures.get(daemon.outlook.node_spiffe)
        return f"no certificate yet{': ' + failure.reason if failure else ''}"
    if daemon.dataplane.rejected:
        return f"the data plane serves nothing new: {daemon.dataplane.rejected}"
    if daemon.memory.blank and not daemon.driver.synced.is_set():
        return "no other peer has told this one the state of the mesh yet"
    return "entering the mesh"
