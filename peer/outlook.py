"""What a peer knows of the mesh and of itself, in the shapes its parts ask for.

Invariant: nothing here holds state of its own; every answer is of this moment.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from gossip.events import Address
from gossip.member import Member
from peer.blame import Situation
from peer.catalog import View
from peer.fold import host_of
from peer.io.stream import Hello
from peer.local import Key, Registered
from trust.identity import format_id, spiffe_node, spiffe_workload
from trust.revocation import signer_subject
from trust.svid import certificate_pem

if TYPE_CHECKING:
    from peer.daemon import Daemon


class Outlook:
    """See the module's docstring."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._bundle_pem = certificate_pem(daemon.membership.root_certificate)

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
        """Where certificates can be had, the likeliest first."""
        daemon = self._daemon
        members = [
            m for m in daemon.node.engine.members() if m.id != daemon.identity.id and self._may_sign(m)
        ]
        return [
            *(m.address for m in members if m.live and m.meta.get("signer")),
            *daemon.seeds,
            *daemon.contacts,
            *(m.address for m in members if m.meta.get("signer") and not m.live),
        ]

    def _may_sign(self, member: Member) -> bool:
        """False once its part in the root key is revoked."""
        return self._daemon.revocations.covers(signer_subject(member.id)) is None

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
            trust_bundle_pem=self._bundle_pem,
        )

    def meta(self, *, draining: bool) -> dict[str, int | str | bool]:
        """What this node says of itself besides its address."""
        meta: dict[str, int | str | bool] = {"inbound": self._daemon.config.ports.inbound}
        if self._daemon.authority is not None:
            meta["signer"] = True
        if draining:
            meta["draining"] = True
        return meta

    def wanted_identities(self) -> set[str]:
        """The SPIFFE IDs this host needs certificates for."""
        domain = self._daemon.membership.trust_domain
        accounts = {spiffe_workload(domain, ns, account) for ns, account in self._daemon.local.accounts()}
        return {self.node_spiffe, *accounts}

    def hello(self) -> Hello:
        """What this peer says first on a stream."""
        daemon = self._daemon
        members = [m for m in daemon.node.engine.members() if self._may_sign(m)]
        signers = [m.address for m in members if m.live and m.meta.get("signer")]
        return Hello(
            root_certificate=daemon.membership.root_certificate,
            signer=daemon.authority is not None,
            signers=tuple(signers),
        )
