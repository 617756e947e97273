"""What a peer knows of the mesh and of itself, in the shapes its parts ask for.

Invariant: nothing here holds state of its own; every answer is of this moment.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gossip.events import Address
from peer.blame import Situation
from peer.catalog import View
from peer.fold import host_of
from peer.io.stream import FrameStream, Hello, StreamError, connect, greet
from peer.local import Key, Registered
from trust.bundle import ANCHORS_MAX
from trust.errors import RevokedError
from trust.identity import format_id, spiffe_node, spiffe_workload
from trust.svid import certificate_pem

if TYPE_CHECKING:
    from peer.daemon import Daemon


class Outlook:
    """See the module's docstring."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    @property
    def node_spiffe(self) -> str:
        return spiffe_node(self._daemon.membership.trust_domain, self._daemon.identity.id)

    @property
    def served_version(self) -> int:
        """The snapshot the data plane serves; 0 before the first."""
        served = self._daemon.dataplane.served
        return served.version if served is not None else 0

    @property
    def oversized(self) -> int:
        """Datagrams that were dropped unread."""
        return self._daemon.datagrams.oversized if self._daemon.datagrams is not None else 0

    def signers(self) -> Iterable[Address]:
        """Whom to ask for certificates besides oneself: any member, at random so that all share the work; then where
        members were met before."""
        daemon = self._daemon
        others = [m for m in daemon.node.engine.members() if m.id != daemon.identity.id]
        live = [m.address for m in others if m.live]
        daemon.rng.shuffle(live)
        away = [m.address for m in others if m.meta.get("signer") and not m.live]
        return [*live, *daemon.seeds, *daemon.contacts, *away]

    def may_sign(self, node: bytes) -> bool:
        """False once it, or its part in the root key, is revoked."""
        try:
            self._daemon.revocations.check_signer(self._daemon.membership.trust_domain, node)
        except RevokedError:
            return False
        return True

    @property
    def signs(self) -> bool:
        """Whether this node is one of the mesh's signers."""
        return self._daemon.identity.public_key in self._daemon.custody.signers

    async def dial(self, node: bytes, purpose: bytes) -> FrameStream:
        """A stream to `node`, which proves that it is that node. Raises StreamError."""
        daemon = self._daemon
        member = daemon.node.engine.member(node)
        if member is None:
            raise StreamError("it is not a member that is known here")
        stream = await connect(member.address, daemon.channels.context_for(node))
        try:
            await greet(stream, purpose)
        except BaseException:
            stream.abort()
            raise
        return stream

    def view(self, services: Mapping[Key, Registered] | None = None) -> View:
        """What is known here and now; with `services` as it would be if these were registered here."""
        daemon = self._daemon
        me = daemon.node.engine.member(daemon.identity.id)
        assert me is not None
        others = daemon.folder.services(daemon.node.engine.members(), but=daemon.identity.id)
        here = daemon.local.instances(host_of(me), services)
        return View(
            node=format_id(daemon.identity.id),
            node_name=me.name,
            trust_domain=daemon.membership.trust_domain,
            zone=daemon.config.zone,
            services=(*here, *others),
            policies=daemon.folder.policies(),
            revoked=daemon.revocations.subjects(),
            access_log=daemon.config.access_log is not False,
        )

    def situation(self) -> Situation:
        """What the data plane is to serve now."""
        return Situation(
            view=self.view(),
            heads=dict(self._daemon.journal.heads),
            certificates=self._daemon.certifier.held,
            trust_bundle_pem=self.bundle_pem(),
        )

    def anchors(self) -> tuple[bytes, ...]:
        """The certificates (DER) of the roots that count now."""
        roots = self._daemon.membership.roots
        accepted = roots.accepted(self._daemon.clock.now())[-ANCHORS_MAX:]
        return tuple(roots.certificate(each) for each in accepted)

    def bundle_pem(self) -> bytes:
        """The same as PEM, one after the other."""
        return b"".join(map(certificate_pem, self.anchors()))

    def meta(self, *, draining: bool) -> dict[str, int | str | bool]:
        """What this node says of itself besides its address."""
        meta: dict[str, int | str | bool] = {"inbound": self._daemon.config.ports.inbound}
        if self.signs:
            meta["signer"] = True
        if self._daemon.rootline.announced:
            meta["root"] = self._daemon.rootline.announced
        if draining:
            meta["draining"] = True
        return meta

    def wanted_identities(self) -> set[str]:
        """The SPIFFE IDs this host needs certificates for."""
        domain = self._daemon.membership.trust_domain
        accounts = {spiffe_workload(domain, ns, account) for ns, account in self._daemon.local.accounts()}
        return {self.node_spiffe, *accounts}

    def waiting_records(self) -> Counter[tuple[bytes, str]]:
        """How many records of whom are held back, and why. GAP is no trouble by itself: what is missing is mostly
        on its way."""
        return Counter((record.writer, reason) for record, reason in self._daemon.journal.waiting())

    def contradicting(self) -> list[tuple[bytes, str]]:
        """Who contradicts itself, and how: as far as this peer has seen since it started."""
        journal = self._daemon.journal
        changed = "what it signed last counts, which is not what it had published before"
        contested = "what came last does not add up with what is held, all of it is asked for"
        return sorted(
            [
                *((writer, changed) for writer in journal.recast),
                *((writer, contested) for writer in journal.contested),
            ]
        )

    def hello(self) -> Hello:
        """What this peer says first on a stream."""
        daemon = self._daemon
        members = [m for m in daemon.node.engine.members() if self.may_sign(m.id)]
        signers = [m.address for m in members if m.live and m.meta.get("signer")]
        return Hello(
            root_certificate=daemon.membership.root_certificate,
            issues=daemon.issuer.ready,
            signers=tuple(signers),
            rollovers=tuple(each.encode() for each in daemon.membership.roots.rollovers),
        )
