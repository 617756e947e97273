"""The seam between the running peer and what people drive it with: admin.sock, and through it the command line.

Every method returns plain JSON data in the shapes of the command line's documentation, or raises `ApiError`.

Invariant: no method half-applies. What raises changed nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Json = dict[str, Any]
Progress = Callable[[Json], None]


class ApiError(Exception):
    """A refusal with the words a user should read. `code` is the command line's exit code: 1 failed, 2 invalid
    input, 3 not converged in time. Nothing was changed."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class PeerApi(Protocol):
    """What a running peer can be asked. Implemented by `peer/run.py`."""

    def health(self) -> Json:
        """{"live": bool, "ready": bool, "detail": str, "node": id, "name": name}"""

    async def members(self) -> list[Json]:
        """[{name, id, address, state, incarnation, boot, zone, ...}]"""

    async def join(self, seeds: Sequence[str]) -> Json:
        """Contact seeds ("host:port"). {"contacted": [..], "failed": {seed: reason}}"""

    async def leave(self, *, revoke: bool = False, reason: str = "") -> Json:
        """Drain, spread the leave, stop the peer. With `revoke` the node's key is void from now on, for good."""

    async def upgrade(self) -> Json:
        """Start a new process from this one's command line, which takes over. {"pid": its process id}; answered when it
        could take over and is about to."""

    async def services(self) -> list[Json]:
        """[{name, namespace, node, address, ports, labels, health}]"""

    async def register(self, documents: Sequence[Mapping[str, Any]], source: str) -> list[Json]:
        """Register local services (parsed YAML documents with key `service`); all or none. `source` names the file."""

    async def deregister(self, namespace: str, name: str) -> Json:
        """Remove a locally registered service."""

    async def apply(
        self,
        documents: Sequence[Mapping[str, Any]],
        source: str,
        *,
        wait_percent: float | None = None,
        timeout_s: float = 10.0,
        progress: Progress | None = None,
    ) -> list[Json]:
        """Publish resources, all or none, durable when it returns. [{kind, namespace, name, action, version}]
        with action created | configured | unchanged. What a person signs again as it stands is unchanged; its
        version is the one there is, which this peer holds for her from then on.

        With `wait_percent`: return when that share of the members enforces it. `progress` is first told
        {"published": the rows}, then again and again {"enforcement": {members, asked, enforced, share, low, high,
        missing, seconds}}. An error of code 3 says that it is published, but was not enforced in time."""

    async def get(self, kind: str, namespace: str | None, name: str | None) -> list[Json]:
        """The resources as written, with metadata.name, metadata.namespace and status. `kind` "all" is every kind."""

    async def find(self, resources: Sequence[tuple[str, str, str]]) -> list[Json | None]:
        """The resources of these (kind, namespace, name) as `get` shows them; None for one that is not there."""

    async def describe(self, kind: str, namespace: str, name: str) -> Json:
        """One resource with who wrote it, when, conflicts, and its status on this node; `versions`: each live version
        with author, time and document; `members`: {live, asked, nodes: [{node, id, state}]} with state enforced | held
        | missing | unreachable, of all live members or of a sample. Takes a little over two seconds at most."""

    async def history(self, kind: str, namespace: str, name: str) -> list[Json]:
        """What this node knows of a policy's versions, latest first: [{version, author, authorName, authorKey (of a
        person who signed it), writtenAt, action, state, replaced: [version], document}] with action written | deleted
        and state current | conflicting | replaced | ignored (its author was not entitled: `reason`)."""

    async def delete(
        self,
        resources: Sequence[tuple[str, str, str]],
        *,
        wait_percent: float | None = None,
        timeout_s: float = 10.0,
        progress: Progress | None = None,
    ) -> list[Json]:
        """Delete resources by (kind, namespace, name), all in one write: [{kind, namespace, name, action, version}]
        with action deleted | absent (there was none; it has no version). An error when none of them is there.
        Waiting as with `apply`."""

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
        """A join token."""

    async def revoke(self, kind: str, name: str, reason: str) -> Json:
        """Revoke a `kind` node | workload | certificate | signer: {subject, kind, reason, revokedAt, expiresAt,
        action} with action revoked | unchanged (it was). Refused unless this peer governs."""

    async def stat(self) -> list[Json]:
        """[{source, destination, requests, success_rate, rps, p50_ms, p95_ms, p99_ms, ...}]"""

    async def edges(self) -> list[Json]:
        """[{source, destination, source_identity, destination_identity, security, requests, reporter}] with security
        mutual_tls | none"""

    async def check(self) -> list[Json]:
        """[{check, status, detail}] with status ok | warn | fail"""

    async def ca_status(self) -> Json:
        """{mode, root, epoch, threshold, signers: [{id, name, state, answers}], can_issue, answering, margin,
        revocations}: `margin` is how many signers more may stop answering before nothing is issued (below zero: how
        many are missing). Asks the signers, which takes two seconds at most."""

    async def ca_rollover(self, overlap_s: float | None, compromised: bool, timeout_s: float) -> Json:
        """Have the signers make a new root that follows on this one. Raises ApiError."""
        ...

    async def ca_issued(self) -> list[Json]:
        """[{identity, node, serial, fingerprint, notBefore, notAfter, issuedAt, by, recordedBy, epoch}] of the
        certificates that are valid and that the signers have recorded, newest first; names where they are known."""

    async def ca_reshare(self, signers: Sequence[str], timeout_s: float) -> Json:
        """Move the root's shares to these signers (names or ids; none: whom this signer thinks right, or the same).
        {epoch, threshold, signers: [name], as_wished}. Only a signer can be asked. Code 3: not within `timeout_s`, and
        it goes on."""

    def metrics(self) -> bytes:
        """Prometheus text exposition."""
