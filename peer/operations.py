"""What a running peer can be asked to do: `PeerApi`, on a `Daemon`.

Invariant: nothing here holds state of its own.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from gossip.events import Address
from gossip.member import Member
from peer import changeover
from peer.admin.edges import edge_rows
from peer.admin.stat import stat_rows
from peer.api import ApiError, Json, Progress
from peer.catalog import ServiceInstance
from peer.checkup import Checkup, elsewhere, not_ready
from peer.config_keys import GOSSIP_PORT
from peer.contacts import resolve
from peer.daemon import Daemon
from peer.driver import DriverClosedError
from peer.enforcement import Dots, survey, wait_enforced
from peer.governing import Governing
from peer.publishing import Publishing
from peer.records import POLICY, policy_key
from peer.units import QuantityError, format_address, parse_address
from trust.admission import create_token
from trust.errors import TrustError
from trust.identity import format_id, parse_id

SURVEY_S: Final = 2.0  # for asking who holds a policy


class Operations:
    """Implements `PeerApi`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._governing = Governing(daemon)
        self._checkup = Checkup(daemon, self._governing, self._named)
        self._publishing = Publishing(
            node=daemon.identity.id,
            folder=daemon.folder,
            write=daemon.write,
            names=self._name_of,
            statuses=lambda: daemon.dataplane.statuses,
            past=lambda key: daemon.disk.run(lambda store: store.past(POLICY, key)),
        )

    # ------------------------------------------------------------------ the mesh

    def health(self) -> Json:
        daemon = self._daemon
        return {
            "live": not daemon.stopping,
            "ready": daemon.ready.is_set(),
            "detail": "ready" if daemon.ready.is_set() else not_ready(daemon),
            "name": self._me().name,
            "id": format_id(daemon.identity.id),
        }

    async def members(self) -> list[Json]:
        members = sorted(self._daemon.node.engine.members(), key=lambda m: (m.name, m.id))
        return [self._member(member) for member in members]

    async def join(self, seeds: Sequence[str]) -> Json:
        try:
            named = [parse_address(seed, GOSSIP_PORT) for seed in seeds]
        except QuantityError as error:
            raise ApiError(f"seed {error}", code=2) from error
        addresses, unresolved = await resolve(named)
        failed = {format_address(address): reason for address, reason in unresolved.items()}
        contacted: tuple[Address, ...] = ()
        if addresses:
            try:
                joined = await self._daemon.join(addresses)
            except DriverClosedError as error:
                raise ApiError(str(error)) from error
            contacted = joined.contacted
            failed.update({format_address(address): reason for address, reason in joined.failed.items()})
        if not contacted:
            words = "; ".join(f"{seed}: {reason}" for seed, reason in failed.items())
            raise ApiError(f"no seed could be joined: {words}")
        return {"contacted": [format_address(address) for address in contacted], "failed": failed}

    async def leave(self, *, revoke: bool = False, reason: str = "") -> Json:
        revoked = {"revoked": await self._governing.give_up(reason)} if revoke else {}
        self._daemon.stop_asked.set()
        return {"left": True, "name": self._me().name} | revoked

    async def upgrade(self) -> Json:
        if self._daemon.upgrade is None:
            raise ApiError("this peer does not run as a process of its own")
        return {"pid": await self._daemon.upgrade.find()}

    async def revoke(self, kind: str, name: str, reason: str) -> Json:
        return await self._governing.revoke(kind, name, reason)

    async def token_create(
        self,
        *,
        services: Sequence[str],
        ttl_s: float,
        uses: int,
        publish: bool,
        invite: bool,
        govern: bool = False,
    ) -> str:
        daemon = self._daemon
        try:
            token = create_token(
                daemon.identity,
                daemon.certifier.member.credential,
                root_public=daemon.membership.roots,
                seeds=[self._me().address, *daemon.outlook.signers()][:4],
                services=[s if "/" in s else f"default/{s}" for s in services] or ["*/*"],
                now=daemon.clock.now(),
                entropy=secrets.token_bytes,
                ttl_s=ttl_s,
                uses=uses,
                publish=publish,
                invite=invite,
                govern=govern,
            )
        except TrustError as error:
            raise ApiError(str(error), code=2) from error
        return token.text

    async def ca_status(self) -> Json:
        return await self._governing.status()

    async def ca_issued(self) -> list[Json]:
        return [
            {
                "identity": svid.spiffe,
                "node": self._named(svid.node),
                "serial": svid.serial.hex(),
                "fingerprint": hashlib.sha256(entry.der).hexdigest(),
                "notBefore": svid.not_before,
                "notAfter": svid.not_after,
                "issuedAt": entry.issued.issued_at,
                "by": self._named(entry.issued.by or svid.node),
                "recordedBy": self._named(entry.writer),
                "epoch": entry.epoch,
            }
            for entry, svid in await self._daemon.issuances.listing()
        ]

    async def ca_reshare(self, signers: Sequence[str], timeout_s: float) -> Json:
        return await self._governing.reshare(signers, timeout_s)

    async def ca_rollover(self, overlap_s: float | None, compromised: bool, timeout_s: float) -> Json:
        return await changeover.begin(self._daemon, overlap_s, compromised=compromised, timeout_s=timeout_s)

    # ------------------------------------------------------------------ services

    async def services(self) -> list[Json]:
        found = sorted(
            self._daemon.outlook.view().services, key=lambda s: (s.namespace, s.name, s.node_name, s.node)
        )
        return [_service(instance) for instance in found]

    async def register(self, documents: Sequence[Mapping[str, Any]], source: str) -> list[Json]:
        specs = await self._daemon.local.register(documents, source)
        keys = {(spec.namespace, spec.name) for spec in specs}
        mine = format_id(self._daemon.identity.id)
        instances = [s for s in self._daemon.outlook.view().services if s.node == mine]
        return [_service(instance) for instance in instances if (instance.namespace, instance.name) in keys]

    async def deregister(self, namespace: str, name: str) -> Json:
        await self._daemon.local.deregister(namespace, name)
        return {"namespace": namespace, "name": name, "action": "deregistered"}

    # ------------------------------------------------------------------ policies

    async def apply(
        self,
        documents: Sequence[Mapping[str, Any]],
        source: str,
        *,
        wait_percent: float | None = None,
        timeout_s: float = 10.0,
        progress: Progress | None = None,
    ) -> list[Json]:
        results, records = await self._publishing.apply(documents, source)
        await self._spread(results, records, wait_percent, timeout_s, progress)
        return results

    async def get(self, kind: str, namespace: str | None, name: str | None) -> list[Json]:
        return self._publishing.get(kind, namespace, name)

    async def find(self, resources: Sequence[tuple[str, str, str]]) -> list[Json | None]:
        return self._publishing.find(resources)

    async def describe(self, kind: str, namespace: str, name: str) -> Json:
        reach = self._publishing.reach(kind, namespace, name)
        members, rows = await survey(self._daemon, reach.items(), within_s=SURVEY_S)
        nodes = [
            {"node": member.name, "id": format_id(member.id), "state": standing.value}
            for member, standing in rows
        ]
        described = self._publishing.describe(kind, namespace, name)
        described["status"]["notInForceAt"] = [
            {"node": each.node_name, "reason": each.notice.reason, "message": each.notice.message}
            for each in elsewhere(self._daemon).get(policy_key(described["kind"], namespace, name), ())
        ]
        return described | {"members": {"live": members, "asked": len(rows), "nodes": nodes}}

    async def history(self, kind: str, namespace: str, name: str) -> list[Json]:
        return await self._publishing.history(kind, namespace, name)

    async def delete(
        self,
        resources: Sequence[tuple[str, str, str]],
        *,
        wait_percent: float | None = None,
        timeout_s: float = 10.0,
        progress: Progress | None = None,
    ) -> list[Json]:
        results, records = await self._publishing.delete(resources)
        await self._spread(results, records, wait_percent, timeout_s, progress)
        return results

    async def _spread(
        self,
        results: list[Json],
        records: Dots,
        wait_percent: float | None,
        timeout_s: float,
        progress: Progress | None,
    ) -> None:
        """See that what was written is enforced: here, or, if that is asked for, by that share of the members."""
        tell: Progress = progress or (lambda _event: None)
        tell({"published": results})
        if wait_percent is None:
            await self._settled(records)
            return
        await wait_enforced(
            self._daemon,
            records,
            share=wait_percent / 100,
            timeout_s=timeout_s,
            progress=lambda count: tell({"enforcement": count.document()}),
        )

    async def _settled(self, records: Dots) -> None:
        """Until this host's own data plane serves what was written, or refuses to."""
        dataplane = self._daemon.dataplane
        try:
            async with asyncio.timeout(2.0):
                await dataplane.wait_enforced(dict(sorted(records)))  # of each writer the last one
        except TimeoutError:
            pass  # it is durable and on its way; `get` shows what the data plane made of it

    # ------------------------------------------------------------------ looking

    async def stat(self) -> list[Json]:
        self._daemon.observe()
        loop = asyncio.get_running_loop()
        return stat_rows(self._daemon.traffic, loop.time())

    async def edges(self) -> list[Json]:
        self._daemon.observe()
        return edge_rows(self._daemon.traffic)

    async def check(self) -> list[Json]:
        return await self._checkup.rows()

    def metrics(self) -> bytes:
        return self._daemon.metrics.render()

    # ------------------------------------------------------------------ pieces

    def _me(self) -> Member:
        me = self._daemon.node.engine.member(self._daemon.identity.id)
        assert me is not None
        return me

    def _name_of(self, node: str) -> str:
        node_id = parse_id(node)
        member = self._daemon.node.engine.member(node_id)
        if member is not None:
            return member.name
        credential = self._daemon.registry.credentials.get(node_id)
        return credential.name if credential is not None else ""

    def _named(self, node: bytes) -> str:
        """Its name, or the id of one that this peer does not know."""
        return self._name_of(format_id(node)) or format_id(node)

    def _member(self, member: Member) -> Json:
        return {
            "name": member.name,
            "id": format_id(member.id),
            "address": format_address(member.address),
            "state": member.state.value,
            "incarnation": member.incarnation,
            "boot": member.boot,
            "zone": member.zone,
            "signer": bool(member.meta.get("signer")),
            "draining": bool(member.meta.get("draining")),
            "self": member.id == self._daemon.identity.id,
        }


def _service(instance: ServiceInstance) -> Json:
    return {
        "name": instance.name,
        "namespace": instance.namespace,
        "node": instance.node_name,
        "nodeId": instance.node,
        "address": format_address((instance.host, instance.inbound_port)),
        "ports": [
            {"name": p.name, "port": p.port, "target": p.target, "protocol": p.protocol}
            for p in instance.ports
        ],
        "labels": dict(instance.labels),
        "account": instance.account,
        "health": instance.health,
    }
