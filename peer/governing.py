"""What a peer can be asked about the mesh's authority: who signs, and that somebody be believed no more.

A revocation is signed by the mesh root, wherever that is, and then carried by the peer that was asked for it, as a
record like any other: it is acknowledged once it is on this host's disk, and spreads with the gossip.

Invariant: nothing here holds state of its own; what raises has changed nothing.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from peer import changeover
from peer.api import ApiError, Json
from peer.enroll import EnrollError, revoke
from peer.messages import Draft
from peer.records import REVOCATION, revocation_key
from peer.signing import Answering
from trust.ceremony.events import CeremonyStatus
from trust.epoch import EpochRecord
from trust.errors import IdentityError, TrustError
from trust.identity import format_id, node_id, parse_id, parse_spiffe, spiffe_node, spiffe_workload
from trust.revocation import Revocation, revoke_self, serial_subject, signer_subject, subject_kind
from trust.revoking import check_signers_left, request_revocation
from trust.rollover import name_of

if TYPE_CHECKING:
    from peer.daemon import Daemon

SERIAL_DIGITS: Final = 32


class Governing:
    """See the module's docstring."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def status(self) -> Json:
        """Who signs, who of them answers now, and how many more may go before nothing can be issued.

        A signer answers when it offers this peer a commitment for a signature with its share of the newest epoch.
        """
        daemon = self._daemon
        group = daemon.custody.group
        threshold = 1 if group is None else group.threshold
        answers = await daemon.signing.survey()
        answering = sum(each.answers for each in answers)
        return {
            "mode": "threshold",
            "root": daemon.custody.root.hex(),
            "root_name": name_of(daemon.custody.root),
            "mesh": daemon.membership.roots.first.hex(),  # the root it was founded with: its name
            "epoch": 0 if group is None else group.epoch,
            "threshold": threshold,
            "signers": [self._row(each) for each in answers],
            "can_issue": answering >= threshold,
            "answering": answering,
            "margin": answering - threshold,
            "revocations": len(daemon.revocations),
            "ceremony": self._ceremony(),
            "rollover": changeover.status(daemon),
            "orders": self._orders(),
        }

    async def issuance_problem(self) -> tuple[str, str]:
        """(what stands in the way of certificates, how bad) at this moment; ("", ...) for nothing."""
        daemon = self._daemon
        group = daemon.custody.group
        if group is None:
            return "this peer has not heard yet who the signers are", "warn"
        answers = await daemon.signing.survey()
        away = [f"{self._name_of(each.node)} ({each.words})" for each in answers if not each.answers]
        answering, total = len(answers) - len(away), len(answers)
        if answering < group.threshold:
            return (
                f"nothing can be issued or renewed: {answering} of {total} signers answer, {group.threshold} are "
                f"needed; missing: {', '.join(away[:5])}"
            ), "fail"
        if away and answering == group.threshold:
            return (
                f"{answering} of {total} signers answer: nothing is issued any more when one of them stops; "
                f"missing: {', '.join(away[:5])}"
            ), "warn"
        return "", "ok"

    def signer_problem(self) -> str:
        """What keeps this peer from its part in signing; "" for nothing, and where it is no signer."""
        daemon = self._daemon
        if daemon.custody.lacking:
            return (
                "its share of the root is lost; the other signers, as many as the threshold says, restore it"
            )
        if words := daemon.handover.unsettled:
            return f"it lets nobody new in, and signs all else: {words}"
        status = daemon.succession.status
        if status is not None and status.convicted:
            names = ", ".join(map(self._name_of, status.convicted))
            return f"signers have lied, which is proved; revoke them: {names}"
        if status is not None and status.refused is not None:
            node, why = status.refused
            return f"it does not carry out the change of signers that {self._name_of(node)} proposes: {why}"
        if words := changeover.inability(daemon):
            return words
        for order in self._orders():
            return (
                f"{order['by']} orders other signers, which it takes others to order too: gossamer ca status"
            )
        return ""

    def _ceremony(self) -> Json | None:
        """The change of signers that is under way here."""
        status = self._daemon.succession.status
        if status is None or status.sealed:
            return None
        return {
            "epoch": status.epoch,
            "stage": status.stage,
            "attempt": max(status.attempt, 0),
            "awaited": [self._name_of(node) for node in status.awaited],
            "refused": self._refused(status),
            "convicted": [self._name_of(node) for node in status.convicted],
        }

    def _refused(self, status: CeremonyStatus) -> str:
        return "" if status.refused is None else f"{self._name_of(status.refused[0])}: {status.refused[1]}"

    async def reshare(self, names: Sequence[str], timeout_s: float) -> Json:
        """Move the root to other signers, or to the same ones with fresh shares; the group that came of it. Waits for
        `timeout_s` at most. Raises ApiError."""
        daemon = self._daemon
        record = daemon.custody.record
        keys = tuple(self._key_of(name) for name in names) or None
        if record is None or daemon.identity.public_key not in record.value.keys:
            signers = [] if record is None else [self._name_of(node) for node in record.value.ids]
            raise ApiError(
                f"this peer is no signer; ask one of them: {', '.join(signers) or 'none is known yet'}",
                code=2,
            )
        ceremonies = daemon.succession.ceremonies
        try:
            wanted = ceremonies.ask(keys)
        except TrustError as error:
            raise ApiError(str(error), code=2) from error
        if ceremonies.asked.lacks:
            raise ApiError(self._lacking(wanted, record), code=3)
        try:
            async with asyncio.timeout(timeout_s):
                while (after := daemon.custody.record) is None or after.epoch == record.epoch:
                    await daemon.succession.until_changed()
        except TimeoutError:
            raise ApiError(
                f"the signers have not changed within {timeout_s:g} s; it goes on{self._hindered()}", code=3
            ) from None
        signers = [self._name_of(node) for node in after.value.ids]
        return {
            "epoch": after.epoch,
            "threshold": after.group.threshold,
            "signers": signers,
            "as_wished": after.value.keys == wanted,
        }

    def _lacking(self, wanted: tuple[bytes, ...], record: EpochRecord) -> str:
        """What an order waits for that goes further than signers go by themselves."""
        asked = self._daemon.succession.ceremonies.asked
        gave = [node for node, keys in asked.orders.items() if keys == wanted]
        others = ", ".join(self._name_of(node) for node in record.value.ids if node not in gave)
        return (
            f"noted, and nothing changes yet: {asked.lacks}. So this takes the orders of "
            f"{record.group.threshold} signers, and {len(gave)} of them gave it; give the same one at another of: "
            f"{others}"
        )

    def _hindered(self) -> str:
        """Who keeps a change of signers waiting, and who refuses it."""
        awaited = ", ".join((self._ceremony() or {}).get("awaited", []))
        refusals = self._daemon.succession.ceremonies.asked.refusals
        refused = "; ".join(f"{self._name_of(node)} refuses: {words}" for node, words in refusals.items())
        return (f", waiting for {awaited}" if awaited else "") + (f"; {refused}" if refused else "")

    def _orders(self) -> list[Json]:
        """Which signers' operators order which signers."""
        orders = self._daemon.succession.ceremonies.asked.orders
        return [
            {"by": self._name_of(node), "signers": [self._name_of(node_id(key)) for key in keys]}
            for node, keys in sorted(orders.items())
        ]

    def _name_of(self, node: bytes) -> str:
        member = self._daemon.node.engine.member(node)
        return member.name if member is not None and member.name else format_id(node)

    def _key_of(self, name: str) -> bytes:
        node = self._node(name)
        credential = self._daemon.registry.credentials.get(node)
        if credential is None:
            raise ApiError(f"{name} is no member that is known here", code=2)
        return credential.public_key

    def _row(self, signer: Answering) -> Json:
        daemon = self._daemon
        member = daemon.node.engine.member(signer.node)
        state = "unknown" if member is None else member.state.value
        return {
            "id": format_id(signer.node),
            "name": "" if member is None else member.name,
            "state": state if daemon.outlook.may_sign(signer.node) else "revoked",
            "answers": signer.answers,
            "detail": signer.words,
        }

    async def revoke(self, kind: str, name: str, reason: str) -> Json:
        """Revoke a node, a workload, a certificate or a signer. Raises ApiError."""
        daemon = self._daemon
        subject = self._subject(kind, name)
        known = daemon.revocations.covers(subject)
        if known is not None and known.issuer in daemon.membership.roots:
            return _row(known, "unchanged")
        self._spare_the_last_signer(subject)
        member = daemon.certifier.member
        try:
            if daemon.issuer.ready:
                now = daemon.clock.now()
                request = request_revocation(daemon.identity, member.credential, subject, reason, now)
                revocation = await daemon.issuer.revocation(request)
            else:
                revocation = await revoke(
                    member, daemon.identity, subject, reason, daemon.outlook.signers(), daemon.clock.now
                )
        except (EnrollError, TrustError) as error:
            raise ApiError(str(error)) from error
        await self._carry(revocation)
        return _row(revocation, "revoked")

    async def give_up(self, reason: str) -> Json:
        """Revoke this node itself, by its own key. Raises ApiError."""
        daemon = self._daemon
        own = spiffe_node(daemon.membership.trust_domain, daemon.identity.id)
        self._spare_the_last_signer(own)
        try:
            revocation = revoke_self(
                daemon.identity, daemon.membership.trust_domain, reason=reason, now=daemon.clock.now()
            )
        except TrustError as error:
            raise ApiError(str(error), code=2) from error
        await self._carry(revocation)
        return _row(revocation, "revoked")

    async def _carry(self, revocation: Revocation) -> None:
        key, payload = revocation_key(revocation), revocation.encode()
        await self._daemon.write([Draft(kind=REVOCATION, key=key, payload=payload)])

    def _spare_the_last_signer(self, subject: str) -> None:
        """A mesh with too few signers could neither admit anybody nor renew anything, nor undo that."""
        daemon = self._daemon
        domain = daemon.membership.trust_domain
        group = daemon.custody.group
        if group is None:
            return  # the signers themselves see to it
        try:
            check_signers_left(subject, group, trust_domain=domain, revoked=daemon.revocations)
        except TrustError as error:
            raise ApiError(str(error)) from error

    # ------------------------------------------------------------------ names

    def _subject(self, kind: str, name: str) -> str:
        """What somebody means by a name on the command line. Raises ApiError."""
        domain = self._daemon.membership.trust_domain
        try:
            match kind:
                case "node":
                    subject = name if name.startswith("spiffe://") else spiffe_node(domain, self._node(name))
                case "signer":
                    subject = signer_subject(self._node(name))
                case "workload" if name.startswith("spiffe://"):
                    subject = name
                case "workload":
                    namespace, slash, account = name.rpartition("/")
                    subject = spiffe_workload(domain, namespace if slash else "default", account)
                case "certificate":
                    subject = serial_subject(_serial(name))
                case _:
                    raise ApiError(f"cannot revoke a {kind[:40]!r}", code=2)
            if subject_kind(subject) != kind:
                raise ApiError(f"{name[:200]!r} is no {kind}", code=2)
            if subject.startswith("spiffe:") and parse_spiffe(subject).trust_domain != domain:
                raise ApiError(f"{subject} is not in trust domain {domain!r}", code=2)
        except TrustError as error:
            raise ApiError(str(error), code=2) from error
        return subject

    def _node(self, name: str) -> bytes:
        """The node of this name or printed id, a member or one that was. Raises ApiError."""
        known = {m.id: m.name for m in self._daemon.node.engine.members()}
        for node, credential in self._daemon.registry.credentials.items():
            known.setdefault(node, credential.name)
        try:
            return parse_id(name)  # an id says all that is needed, also of a node nobody has met
        except IdentityError:
            pass
        found = [node for node, called in known.items() if called == name]
        if len(found) != 1:
            ids = ", ".join(sorted(map(format_id, found)))
            words = (
                f"several nodes are called {name!r}: {ids}" if found else f"no node is called {name[:80]!r}"
            )
            raise ApiError(words, code=2)
        return found[0]


def _serial(text: str) -> bytes:
    """A certificate's serial as OpenSSL and others print it. Raises ApiError."""
    digits = text.removeprefix("serial:").replace(":", "").lower()
    if not 0 < len(digits) <= SERIAL_DIGITS or not all(each in "0123456789abcdef" for each in digits):
        raise ApiError(f"{text[:80]!r} is no serial: up to {SERIAL_DIGITS} hex digits are expected", code=2)
    return bytes.fromhex(digits.rjust(SERIAL_DIGITS, "0"))


def _row(revocation: Revocation, action: str) -> Json:
    return {
        "subject": revocation.subject,
        "kind": subject_kind(revocation.subject),
        "reason": revocation.reason,
        "revokedAt": revocation.revoked_at,
        "expiresAt": revocation.expires_at,
        "action": action,
    }
