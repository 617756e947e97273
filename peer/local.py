"""The services of this host: where they were registered, how healthy they are, and what the mesh is told of them.

A service comes from a file in `services.d/` or from `gossamer service register`, and belongs to where it came
from: a file cannot replace what the command line registered, nor one file what another did. Those of the
command line are kept in the store and come back with the peer.

Order of a change: check it all (names this host may use, ports, clashes), open the upstream ports, remember
it, tell the mesh. What fails in the first two steps changes nothing.

Invariant: what the mesh was told last is what `told` says, so that a change costs one record a changed service.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from peer.api import ApiError
from peer.catalog import Health, Host, ServiceInstance, ServicePort
from peer.fold import PORTS_PER_NODE_MAX, SERVICES_PER_NODE_MAX, instance
from peer.io.health import Check, ExecProbe, HttpProbe, Probe, TcpProbe
from peer.messages import Draft
from peer.records import SERVICE, ServicePayload, encode_service
from proxy.resources import ResourceError, ServiceSpec, parse_service_documents
from trust.credential import Credential

COMMAND: Final = "command line"

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A service of this host, and where it was registered."""

    spec: ServiceSpec
    document: Mapping[str, Any]  # as it was written
    source: str  # COMMAND or the path of a file

    @property
    def key(self) -> Key:
        return self.spec.namespace, self.spec.name


class LocalServices:
    """The set of services registered here.

    `write(drafts)` publishes records and raises ApiError; `remember(text)` makes the command line's registrations
    durable and raises ApiError; `prepare(services)` opens what they need and raises ApiError; `changed()` is told
    after every change, also after one that was undone.
    """

    def __init__(
        self,
        *,
        credential: Callable[[], Credential],
        write: Callable[[Sequence[Draft]], Awaitable[object]],
        remember: Callable[[str], Awaitable[None]],
        prepare: Callable[[Mapping[Key, Registered]], None],
        changed: Callable[[], None],
    ) -> None:
        self._credential = credential
        self._write = write
        self._remember = remember
        self._prepare = prepare
        self._changed = changed
        self._services: Mapping[Key, Registered] = {}
        self._health: dict[Key, Health] = {}
        self._told: dict[str, bytes] = {}
        self._one_at_a_time = asyncio.Lock()

    # ------------------------------------------------------------------ reading

    @property
    def services(self) -> Mapping[Key, Registered]:
        return self._services

    @property
    def health(self) -> Mapping[Key, Health]:
        """The verdicts of active checks, for services that have one."""
        return self._health

    def accounts(self) -> set[Key]:
        """(namespace, account) of every workload here."""
        return {(r.spec.namespace, r.spec.account) for r in self._services.values()}

    def instances(
        self, host: Host, services: Mapping[Key, Registered] | None = None
    ) -> tuple[ServiceInstance, ...]:
        """This host's part of the view; with `services` as it would be with them."""
        chosen = self._services if services is None else services
        return tuple(
            replace(
                instance(_payload(registered, self._health.get(key, "unknown")), host),
                upstreams=_upstreams(registered.spec),
            )
            for key, registered in sorted(chosen.items())
        )

    def checks(self) -> list[Check]:
        """The active checks to run."""
        return [_check(r.spec) for r in self._services.values() if r.spec.check is not None]

    # ------------------------------------------------------------------ changing

    def restore(self, text: str, told: Mapping[str, bytes]) -> None:
        """Take up what an earlier run remembered and had told the mesh. Raises ResourceError."""
        self._told = dict(told)
        try:
            documents = json.loads(text) if text else []
        except (ValueError, RecursionError) as error:
            raise ResourceError([f"not JSON: {error}"]) from error
        if not isinstance(documents, list):
            raise ResourceError(["not a list of services"])
        if documents:
            self._services = _registered(documents, "registered services", COMMAND)

    def mesh_knows(self, told: Mapping[str, bytes]) -> None:
        """What other peers hold of this node's services (key -> payload), where that is more than this one held."""
        self._told = dict(told)

    async def register(self, documents: Sequence[Mapping[str, Any]], source: str) -> list[ServiceSpec]:
        """Register services from the command line, all or none. Raises ApiError."""
        try:
            added = _registered(documents, source, COMMAND)
        except ResourceError as error:
            raise ApiError(str(error), code=2) from error
        await self._change(added, removed=())
        return [registered.spec for registered in added.values()]

    async def deregister(self, namespace: str, name: str) -> None:
        """Remove what the command line registered. Raises ApiError."""
        found = self._services.get((namespace, name))
        if found is None:
            raise ApiError(f"service {namespace}/{name} is not registered at this peer")
        if found.source != COMMAND:
            raise ApiError(f"service {namespace}/{name} comes from {found.source}: change that file", code=2)
        await self._change({}, removed=[(namespace, name)])

    async def replace_file(self, path: str, specs: Iterable[ServiceSpec]) -> None:
        """What a file of `services.d/` says now. Raises ApiError; then what it said before stands."""
        added = {
            (spec.namespace, spec.name): Registered(spec=spec, document={}, source=path) for spec in specs
        }
        removed = [key for key, r in self._services.items() if r.source == path and key not in added]
        await self._change(added, removed)

    async def publish(self) -> None:
        """Tell the mesh what it does not know yet: after a start, and after health has changed."""
        async with self._one_at_a_time:
            await self._tell(self._services, self._health)
        self._changed()

    def set_health(self, key: Key, health: Health) -> None:
        """A check's verdict; `publish` tells it."""
        if key in self._services:
            self._health[key] = health

    async def _change(self, added: Mapping[Key, Registered], removed: Iterable[Key]) -> None:
        async with self._one_at_a_time:
            before = self._services
            gone = set(removed)
            after = {key: r for key, r in before.items() if key not in gone} | dict(added)
            self._judge(added, before, after)
            # A verdict is of what was checked: another address or check has none yet.
            health = {
                key: verdict
                for key, verdict in self._health.items()
                if key in after and after[key].spec == before[key].spec
            }
            self._prepare(after)
            try:
                await self._keep(before, after, health)
                self._services, self._health = after, health
            finally:
                self._changed()

    async def _keep(
        self, before: Mapping[Key, Registered], after: Mapping[Key, Registered], health: Mapping[Key, Health]
    ) -> None:
        """Remember a change and tell the mesh. Raises ApiError; then neither was done."""
        was, text = _remembered(before), _remembered(after)
        if text != was:
            await self._remember(text)
        try:
            await self._tell(after, health)
        except ApiError as refusal:
            if text != was:
                try:
                    await self._remember(was)
                except ApiError as error:
                    raise ApiError(f"{refusal}; and it comes back with the next start: {error}") from error
            raise

    def _judge(
        self,
        added: Mapping[Key, Registered],
        before: Mapping[Key, Registered],
        after: Mapping[Key, Registered],
    ) -> None:
        """Raises ApiError for what may not be registered here."""
        credential = self._credential()
        if len(after) > SERVICES_PER_NODE_MAX:
            raise ApiError(f"a peer has at most {SERVICES_PER_NODE_MAX} services", code=2)
        if sum(len(registered.spec.ports) for registered in after.values()) > PORTS_PER_NODE_MAX:
            raise ApiError(f"the services of a peer have at most {PORTS_PER_NODE_MAX} ports", code=2)
        for key, registered in added.items():
            spec = registered.spec
            known = before.get(key)
            if known is not None and known.source != registered.source:
                raise ApiError(
                    f"service {spec.namespace}/{spec.name} is already registered by {known.source}", code=2
                )
            for name in (spec.name, spec.account):
                if not credential.allows(spec.namespace, name):
                    raise ApiError(
                        f"this peer may not be {spec.namespace}/{name}: its credential allows "
                        f"{', '.join(credential.services) or 'no service'}",
                        code=2,
                    )
        ports: dict[int, Registered] = {}
        for registered in after.values():
            for upstream in registered.spec.upstreams:
                other = ports.setdefault(upstream.local_port, registered)
                if other is not registered:
                    raise ApiError(
                        f"local port {upstream.local_port} is an upstream of service {other.spec.name} and of "
                        f"{registered.spec.name}",
                        code=2,
                    )

    async def _tell(self, services: Mapping[Key, Registered], health: Mapping[Key, Health]) -> None:
        wanted = {
            f"{r.spec.namespace}/{r.spec.name}": encode_service(_payload(r, health.get(r.key, "unknown")))
            for r in services.values()
        }
        drafts = [
            Draft(kind=SERVICE, key=key, payload=payload)
            for key, payload in sorted(wanted.items())
            if self._told.get(key) != payload
        ]
        drafts += [
            Draft(kind=SERVICE, key=key, payload=b"") for key in sorted(self._told) if key not in wanted
        ]
        if drafts:
            await self._write(drafts)
            self._told = wanted


def _payload(registered: Registered, health: Health) -> ServicePayload:
    spec = registered.spec
    return ServicePayload(
        namespace=spec.namespace,
        name=spec.name,
        account=spec.account,
        address=spec.address,
        ports=tuple(
            ServicePort(name=p.name, port=p.port, target=p.target, protocol=p.protocol) for p in spec.ports
        ),
        labels=spec.labels,
        health=health,
    )


def _registered(documents: Sequence[Mapping[str, Any]], source: str, owner: str) -> dict[Key, Registered]:
    """Raises ResourceError."""
    specs = parse_service_documents(documents, source)
    return {
        (spec.namespace, spec.name): Registered(spec=spec, document=document, source=owner)
        for spec, document in zip(specs, documents, strict=True)
    }


def _remembered(services: Mapping[Key, Registered]) -> str:
    documents = [r.document for _, r in sorted(services.items()) if r.source == COMMAND]
    return json.dumps(documents)


def _upstreams(spec: ServiceSpec) -> tuple[tuple[str, str, int, int], ...]:
    return tuple((u.namespace, u.service, u.port, u.local_port) for u in spec.upstreams)


def _check(spec: ServiceSpec) -> Check:
    assert spec.check is not None
    probe: Probe = TcpProbe()
    if spec.check.http is not None:
        probe = HttpProbe(path=spec.check.http)
    elif spec.check.exec:
        probe = ExecProbe(argv=spec.check.exec)
    return Check(
        namespace=spec.namespace,
        name=spec.name,
        probe=probe,
        host=spec.address,
        port=spec.ports[0].target,
        interval_s=spec.check.interval_s,
        timeout_s=spec.check.timeout_s,
    )
