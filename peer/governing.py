"""What a peer can be asked about the mesh's authority: who signs, and that somebody be believed no more.

A revocation is signed by the mesh root, wherever that is, and then carried by the peer that was asked for it, as a
record like any other: it is acknowledged once it is on this host's disk, and spreads with the gossip.

Invariant: nothing here holds state of its own; what raises has changed nothing.
"""

from typing import TYPE_CHECKING, Final

from peer.api import ApiError, Json
from peer.enroll import EnrollError, revoke
from peer.messages import Draft
from peer.records import REVOCATION, revocation_key
from peer.signing import Answering
from trust.errors import IdentityError, TrustError
from trust.groupkey import node_of
from trust.identity import format_id, parse_id, parse_spiffe, spiffe_node, spiffe_workload
from trust.revocation import Revocation, revoke_self, serial_subject, signer_subject, subject_kind
from trust.revoking import request_revocation

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
            "root": daemon.membership.root_public.hex(),
            "epoch": 0 if group is None else group.epoch,
            "threshold": threshold,
            "signers": [self._row(each) for each in answers],
            "can_issue": answering >= threshold,
            "answering": answering,
            "margin": answering - threshold,
            "revocations": len(daemon.revocations),
        }

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
        if known is not None and known.issuer == daemon.membership.root_public:
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
        signing = [node for each in group.identifiers if daemon.outlook.may_sign(node := node_of(each))]
        rest = [node for node in signing if subject not in (signer_subject(node), spiffe_node(domain, node))]
        if len(rest) < len(signing) and len(rest) < group.threshold:
            raise ApiError(
                f"{subject} is not revoked: {len(rest)} signers would be left and {group.threshold} are needed, so "
                "that nobody could be issued a certificate any more; let another peer become a signer first"
            )

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
