"""The mesh root in shares: some hosts sign together, and all hosts have their credentials renewed by them.

The root's secret is dealt to the first hosts; any `threshold` of them make a signature, by the machines that peers have
(`trust/signer.py`, `trust/coordinator.py`). From half of its credential's life on a host coordinates its own renewal,
and tries again for as long as it has none. A signer judges each request by its own clock, as `draft_credential` has it;
it loses its nonces when its process ends and its share with its identity. A signer that is revoked loses its seat by a
resharing among the others, which needs a threshold of them, runs at once, and leaves the root what it was.

Frames go between hosts as on a connection: one that is lost is late, one that is cut off leads to `Unreachable`, one to
a stopped process waits.

Invariant: no randomness but from streams of the world's seed; a world without an authority is as it was.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from typing import Final

from peer.messages import CredentialRenewed
from simulations.host import Host
from simulations.mesh import TRUST_DOMAIN, RealMesh
from simulations.randomness import stream
from simulations.world import World
from trust.admission import RenewRequest, TokenLedger, decode_request, draft_credential, request_renewal
from trust.ceremony.growth import SignerRules
from trust.ceremony.resharing import constant_of
from trust.coordinator import Coordinator, CoordinatorOutput, Request
from trust.credential import SERIAL_BYTES, Credential
from trust.errors import TrustError
from trust.group import Scalar, Secret, base_mul
from trust.groupkey import GroupKey, KeyShare, group_key, identifier_of
from trust.identity import verify
from trust.keygen import combine_packages, combine_shares, deal
from trust.polynomial import evaluate, interpolate_points, random_coefficients
from trust.revocation import RevocationSet
from trust.roast import Completed, Failed, Reply, Send, Tick, Unreachable
from trust.sessionwire import ToCoordinator, ToSigner, decode_to_coordinator, decode_to_signer
from trust.signer import Answer, Asked, Denied, Granted, Signer

SIGNERS_MAX: Final = 16
RETRY_SHARE: Final = 0.05  # of a credential's life: how long a host waits before it tries again
RETRY_S_MIN: Final = 1.0
CONNECTS_S: Final = 0.5  # until a host knows that another cannot be reached
SENT_AGAIN_S: Final = 0.2  # a frame that was lost arrives so much later
LATE_S_MAX: Final = 5.0  # then the connection is given up
STOPPED_S: Final = 0.2  # how often a process that was stopped is looked at
RENEWED_AT: Final = (0.5, 0.1)  # of its life: at least, and how much more at random

WANTING: Final = "a certificate could not be had"
LATE: Final = "a certificate was had after it had run out"
RESHARED: Final = "the signers changed and the root stayed"


class Authority:
    """See the module's theory. Make it once the hosts are there and before they run. `on_granted` and `on_issued` are
    for observers: (signer, bytes it gave a share for), (host, bytes signed, signature)."""

    def __init__(self, world: World, *, signers: int, ttl_s: int) -> None:
        assert isinstance(world.mesh, RealMesh), "a root of stand-ins has no shares"
        assert 1 <= signers <= min(SIGNERS_MAX, len(world.hosts)), "signers are hosts"
        self.ttl_s = ttl_s
        self.barred: set[int] = set()  # hosts that do not renew
        self.issued = 0
        self.counts: Counter[str] = Counter()
        self.on_granted: list[Callable[[Host, bytes], None]] = []
        self.on_issued: list[Callable[[Host, bytes, bytes], None]] = []
        self._world = world
        self._rng = stream(world.seed, "authority")
        self._shares: dict[int, KeyShare] = {}  # by host
        self._signers: dict[int, Signer] = {}  # of hosts that run
        self._coordinators: dict[int, Coordinator] = {}
        self._asking: dict[int, tuple[bytes, Credential]] = {}  # by host: its session, and what it is to get
        self._revoking: set[int] = set()
        self.group = self._dealt(world.hosts[:signers])
        world.on_life.append(self._life)

    # ------------------------------------------------------------------ shares

    def _dealt(self, hosts: Sequence[Host]) -> GroupKey:
        """The root's own secret, dealt as by somebody who knows it: a root that one node held is where meshes begin."""
        assert isinstance(self._world.mesh, RealMesh)
        threshold = SignerRules(signers=len(hosts)).threshold_of(len(hosts))
        drawn = random_coefficients(threshold, self._rng.randbytes)
        coefficients = (self._world.mesh.root_scalar(), *drawn[1:])
        secrets = {host.index: evaluate(coefficients, identifier_of(host.id)) for host in hosts}
        members = [(identifier_of(host.id), base_mul(secrets[host.index])) for host in hosts]
        group = group_key(base_mul(coefficients[0]), threshold, members, epoch=1)
        for host in hosts:
            self._shares[host.index] = KeyShare(group, identifier_of(host.id), Secret(secrets[host.index]))
        return group

    @property
    def seats(self) -> tuple[int, ...]:
        """The hosts that hold a share."""
        return tuple(sorted(self._shares))

    def able(self) -> bool:
        """Whether enough signers run."""
        return len(self._signers) >= self.group.threshold

    def fewest(self) -> int:
        """The least number of shares that give the root."""
        points = dict(self.group.members)
        for count in range(1, self.group.threshold):
            some = self.group.identifiers[
                :count
            ]  # where a polynomial is too short for one set, it is for all
            if interpolate_points({each: points[each] for each in some}) == self.group.public:
                return count
        return self.group.threshold

    def revoke(self, hosts: Sequence[Host]) -> None:
        """Take these hosts' seats, as soon as a threshold of the others can."""
        self._revoking |= {host.index for host in hosts if host.index in self._shares}
        self._reshare(None, None)

    def _reshare(self, _first: None, _second: None) -> None:
        if not self._revoking:
            return
        staying = [index for index in self.seats if index not in self._revoking]
        dealing = [index for index in staying if index in self._signers][: self.group.threshold]
        if len(dealing) < self.group.threshold:
            self._world.push(self._world.now + RETRY_S_MIN, self._reshare, None, None)
            return
        hosts = self._world.hosts
        threshold = SignerRules(signers=len(staying)).threshold_of(len(staying))
        dealers = [hosts[index].id for index in dealing]
        dealings = [
            deal(
                identifier_of(hosts[index].id),
                threshold,
                self._rng.randbytes,
                constant=constant_of(self._shares[index], dealers),
            )
            for index in dealing
        ]
        receivers = {index: self._shares[index].identifier for index in staying}
        packages = {dealing.identifier: dealing.package for dealing in dealings}
        self.group = combine_packages(packages, receivers.values(), epoch=self.group.epoch + 1)
        for index in self._revoking:
            self._shares.pop(index)
            self._signers.pop(index, None)
        for index, identifier in receivers.items():
            secret = combine_shares(dealing.share_for(identifier) for dealing in dealings)
            self._shares[index] = KeyShare(self.group, identifier, secret)
            if index in self._signers:
                self._signers[index].adopt(self._shares[index])
        self._revoking.clear()
        self._asking.clear()
        for index in self._coordinators:
            self._coordinators[index] = Coordinator(self.group, self._rng)
        self.counts[RESHARED] += 1

    # ------------------------------------------------------------------ hosts come and go

    def _life(self, host: Host, what: str) -> None:
        if what == "crash":
            self._signers.pop(host.index, None)
            self._coordinators.pop(host.index, None)
            self._asking.pop(host.index, None)
        elif what in ("start", "warm"):
            share = self._shares.get(host.index)
            if share is not None and share.identifier != identifier_of(host.id):
                del self._shares[host.index]  # with its identity
            elif share is not None:
                self._signers[host.index] = Signer([share], self._judge(host), self._rng.randbytes)
            self._coordinators[host.index] = Coordinator(self.group, self._rng)
            self._later(host, self._due_in_s(host))

    def _judge(self, host: Host) -> Callable[[bytes, bytes, float], bytes | Denied]:
        """What that host signs: what it would have drafted itself."""

        def approve(data: bytes, coordinator: bytes, _now: float) -> bytes | Denied:
            try:
                request = decode_request(data)
                if not isinstance(request, RenewRequest):
                    return Denied(detail="only renewals are judged here")
                draft = self._drafted(request, host)
            except TrustError as error:
                return Denied(detail=str(error))
            if draft.node != coordinator:
                return Denied(detail="this is for somebody else")
            return draft.signing_bytes()

        return approve

    def _drafted(self, request: RenewRequest, judge: Host) -> Credential:
        """By the moment in the request, so that all draft the same; how far it is from the judge's clock is judged."""
        draft = partial(
            draft_credential,
            request,
            self.group.public,
            trust_domain=TRUST_DOMAIN,
            serial=sha256(request.encode()).digest()[:SERIAL_BYTES],
            ledger=TokenLedger(),
            revoked=RevocationSet(self.group.public),
            ttl_s=self.ttl_s,
        )
        draft(now=int(self._world.now_of(judge)))
        return draft(now=request.requested_at).credential

    # ------------------------------------------------------------------ renewal

    def overdue(self) -> list[Host]:
        """Running hosts whose credential has run out."""
        return [host for host in self._world.live() if host.credential.expires_at <= self._world.now]

    def _due_in_s(self, host: Host) -> float:
        share = RENEWED_AT[0] + RENEWED_AT[1] * self._rng.random()
        return host.credential.issued_at + share * self.ttl_s - self._world.now_of(host)

    def _later(self, host: Host, after_s: float) -> None:
        self._world.push(self._world.now + max(after_s, 0.0), self._due, host, host.life)

    def _due(self, host: Host, life: int) -> None:
        if life != host.life or host.node is None:
            return
        due_in_s = self._due_in_s(host)
        if due_in_s > 0:
            self._later(host, due_in_s)
            return
        self._later(host, max(RETRY_S_MIN, RETRY_SHARE * self.ttl_s))
        if host.stopped or host.index in self.barred or host.index in self._asking:
            return
        request = request_renewal(host.identity, host.credential, self._world.now_of(host))
        draft = self._drafted(request, host)
        session = self._rng.randbytes(16)
        self._asking[host.index] = session, draft
        asks = Request(session=session, request=request.encode(), message=draft.signing_bytes())
        self._take(host, self._coordinators[host.index].step(self._world.now, asks))

    def _take(self, host: Host, outputs: Sequence[CoordinatorOutput]) -> None:
        for output in outputs:
            match output:
                case Send(signer=signer, message=message):
                    self._ask(host, signer, message)
                case Completed(session=session, signature=signature):
                    self._completed(host, session, signature)
                case Failed():
                    self._asking.pop(host.index, None)
                    self.counts[WANTING] += 1
        coordinator = self._coordinators.get(host.index)
        if coordinator is not None and coordinator.deadline is not None:
            self._world.push(max(coordinator.deadline, self._world.now), self._tick, host, coordinator)

    def _tick(self, host: Host, coordinator: Coordinator) -> None:
        due = coordinator.deadline
        if self._coordinators.get(host.index) is coordinator and due is not None and due <= self._world.now:
            self._take(host, coordinator.step(self._world.now, Tick()))

    def _completed(self, host: Host, session: bytes, signature: bytes) -> None:
        asked = self._asking.pop(host.index, None)
        if asked is None or asked[0] != session:
            return  # of before the signers changed
        message = asked[1].signing_bytes()
        self.issued += 1
        for observer in self.on_issued:
            observer(host, message, signature)
        if host.node is None or not verify(self.group.public, message, signature):
            return
        self.counts[LATE] += host.credential.expires_at <= self._world.now
        host.credential = asked[1].signed(signature)
        self._world.arrive(host, CredentialRenewed(credential=host.credential))

    # ------------------------------------------------------------------ frames

    def _way_s(self, source: Host, target: Host) -> float | None:
        """How long a frame takes; None: it does not arrive."""
        network = self._world.network
        if source is target:
            return 0.0
        if network.is_cut(source.index, target.index):
            return None
        way_s = network.delay_s(source.index, target.index)
        while self._rng.random() < network.loss_of(source.index, target.index):
            way_s += SENT_AGAIN_S
            if way_s > LATE_S_MAX:
                return None
        return way_s

    def _ask(self, host: Host, signer: Scalar, message: ToSigner) -> None:
        target = next(
            (self._world.hosts[at] for at in self.seats if self._shares[at].identifier == signer), None
        )
        way_s = None if target is None else self._way_s(host, target)
        if target is None or way_s is None:
            self._unreachable(host, signer)
            return
        self._world.push(
            self._world.now + way_s,
            self._asked,
            (host, host.life, target),
            decode_to_signer(message.encode()),
        )

    def _unreachable(self, host: Host, signer: Scalar) -> None:
        self._world.push(
            self._world.now + CONNECTS_S, self._answered, (host, host.life), Unreachable(signer=signer)
        )

    def _asked(self, way: tuple[Host, int, Host], message: ToSigner) -> None:
        host, life, target = way
        share, signer = self._shares.get(target.index), self._signers.get(target.index)
        if host.life != life or share is None:
            return
        if signer is None:
            self._unreachable(host, share.identifier)
            return
        if target.stopped:
            self._world.push(self._world.now + STOPPED_S, self._asked, way, message)
            return
        for output in signer.step(self._world.now, Asked(coordinator=host.id, message=message)):
            match output:
                case Granted(message=granted):
                    for observer in self.on_granted:
                        observer(target, granted)
                case Answer(message=answer):
                    self._answer(target, share.identifier, host, answer)

    def _answer(self, target: Host, signer: Scalar, host: Host, answer: ToCoordinator) -> None:
        way_s = self._way_s(target, host)
        if way_s is not None:
            reply = Reply(signer=signer, message=decode_to_coordinator(answer.encode()))
            self._world.push(self._world.now + way_s, self._answered, (host, host.life), reply)

    def _answered(self, way: tuple[Host, int], reply: Reply | Unreachable) -> None:
        host, life = way
        coordinator = self._coordinators.get(host.index)
        if host.life != life or coordinator is None:
            return
        if host.stopped:
            self._world.push(self._world.now + STOPPED_S, self._answered, way, reply)
            return
        self._take(host, coordinator.step(self._world.now, reply))
