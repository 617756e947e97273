"""What a peer can be asked about the mesh's authority: who signs, and that somebody be believed no more.

A revocation is signed by the mesh root, wherever that is, and then carried by the peer that was asked for it, as a
record like any other: it is acknowledged once it is on this host's disk, and spreads with the gossip.

Invariant: nothing here holds state of its own; what raises has changed nothing.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from gossip.member import Member
from peer.api import ApiError, Json
from peer.enroll import EnrollError, revoke
from peer.io.stream import ISSUE, StreamError, connect, greet
from peer.messages import Draft
from peer.records import REVOCATION, revocation_key
from trust.errors import IdentityError, TrustError
from trust.identity import format_id, parse_id, parse_spiffe, spiffe_node, spiffe_workload
from trust.revocation import Revocation, revoke_self, serial_subject, signer_subject, subject_kind
from trust.revoking import request_revocation

if TYPE_CHECKING:
    from peer.daemon import Daemon

SERIAL_DIGITS: Final = 32
ANSWER_S_MAX: Final = 1.0
SIGNERS_ASKED_MAX: Final = 32


class Governing:
    """See the module's docstring."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    async def status(self) -> Json:
        """Who signs, who of them answers now, and how many more may go before nothing can be issued.

        A signer answers when it says as a signer, over a stream that proves who it is, that it signs; each is given
        ANSWER_S_MAX. At most SIGNERS_ASKED_MAX are asked.
        """
        daemon = self._daemon
        signers = [m for m in daemon.node.engine.members() if m.meta.get("signer")]
        asked = sorted(signers, key=lambda m: (not m.live, m.name, m.id))[:SIGNERS_ASKED_MAX]
        answers = await asyncio.gather(*(self._answers(member) for member in asked))
        rows = [
            {
                "id": format_id(member.id),
                "name": member.name,
                "state": member.state.value if self._may_sign(member) else "revoked",
                "answers": answered,
            }
            for member, answered in zip(asked, answers, strict=True)
        ]
        threshold = daemon.authority.threshold if daemon.authority is not None else 1
        return {
            "mode": "threshold",
            "root": daemon.membership.root_public.hex(),
            "epoch": daemon.authority.epoch if daemon.authority is not None else 0,
            "threshold": threshold,
            "signers": rows,
            "can_issue": sum(answers) >= threshold,
            "answering": sum(answers),
            "margin": sum(answers) - threshold,
            "revocations": len(daemon.revocations),
        }

    async def _answers(self, member: Member) -> bool:
        daemon = self._daemon
        if not self._may_sign(member):
            return False
        if member.id == daemon.identity.id:
            return daemon.authority is not None and daemon.authority.can_sign
        try:
            stream = await connect(
                member.address, daemon.channels.context_for(member.id), timeout_s=ANSWER_S_MAX
            )
        except StreamError:
            return False
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return (await greet(stream, ISSUE)).signer
        except (StreamError, TimeoutError):
            return False
        finally:
            stream.abort()

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
            if daemon.authority is not None:
                now = daemon.clock.now()
                request = request_revocation(daemon.identity, member.credential, subject, reason, now)
                revocation = daemon.issuer.revocation(request)
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
        signing = [m for m in daemon.node.engine.members() if m.meta.get("signer") and self._may_sign(m)]
        rest = [m for m in signing if subject not in (signer_subject(m.id), spiffe_node(domain, m.id))]
        threshold = daemon.authority.threshold if daemon.authority is not None else 1
        if len(rest) < len(signing) and len(rest) < threshold:
            raise ApiError(
                f"{subject} is not revoked: {len(rest)} signers would be left and {threshold} are needed, so that "
                "nobody could be issued a certificate any more; let another peer become a signer first"
            )

    def _may_sign(self, member: Member) -> bool:
        try:
            self._daemon.revocations.check_signer(self._daemon.membership.trust_domain, member.id)
        except TrustError:
            return False
        return True

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
