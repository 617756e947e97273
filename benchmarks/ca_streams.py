"""Certificates by three of five signers over loopback streams: a process for each signer, mutual TLS between all.

    python -m benchmarks.ca_streams [--certificates 300] [-o table|json]

The coordinator (this process) has X.509-SVIDs signed as a member does it: its own policy, the order, the signatures,
each signer's own judgement. *warm*: its streams are open and it holds commitments for the next signature, as where many
members ask through one. *cold*: it opens streams to all five first and has no commitments, as a member does that renews
its own certificate twice an hour. CPU time is of each process as a whole: Python, TLS and the kernel's part.

The last lines compute from the *cold* row what a mesh of a thousand peers costs each signer: two identities a peer,
renewed once in half of their life of an hour.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import resource
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final
from unittest.mock import patch

from peer import cosigner as cosigner_module
from peer.applicants import Applicants
from peer.channels import Channels, node_of
from peer.cosigner import Cosigner
from peer.custody import Custody
from peer.enforcement import Enforcement
from peer.handover import Settled
from peer.io.keys import Keys
from peer.io.stream import SIGN, FrameStream, Hello, connect, greet
from peer.issuer import Issuer
from peer.signing import Signing
from peer.spending import Spending
from trust.admission import Spend, TokenLedger, found
from trust.authority import root_certificate
from trust.bundle import TrustBundle
from trust.coordinator import CoordinatorConfig
from trust.credential import Credential
from trust.group import Scalar, Secret, base_mul
from trust.groupkey import GroupKey, KeyShare, group_key, identifier_of
from trust.held import HeldAuthority
from trust.identity import NodeIdentity, spiffe_node, spiffe_workload
from trust.issuance import issue_svid, request_svid
from trust.order import Rules, judge
from trust.polynomial import evaluate, random_coefficients
from trust.revocation import RevocationSet
from trust.roast import SigningConfig
from trust.svid import KeyedSvid, keyed, new_leaf_key

DOMAIN: Final = "cluster.local"
THRESHOLD, SIGNERS = 3, 5
PEERS: Final = 1000
IDENTITIES_EACH: Final = 2
HALF_LIFE_S: Final = 1800.0
PATIENT: Final = CoordinatorConfig(signing=SigningConfig(timeout_s=60.0))  # the machine may be busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to ask. Times in milliseconds of CPU; `judging` and `signing` are parts of `signer`."""

    way: str
    at_a_time: int
    certificates_per_s: float
    latency_ms: float  # median, wall clock
    coordinator: float  # a certificate
    signer: float  # a certificate, mean of the five
    judging: float  # a share
    signing: float  # a share


class Given(Custody):
    """A group that was dealt, in place of what a ceremony leaves."""

    def __init__(self, group: GroupKey, share: KeyShare | None) -> None:
        super().__init__(Keys(Path("/nonexistent")), group.public, bytes(16))
        self._group, self._given = group, () if share is None else (share,)

    @property
    def group(self) -> GroupKey:
        return self._group

    @property
    def shares(self) -> tuple[KeyShare, ...]:
        return self._given


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A member, as the processes tell one another."""

    seed: bytes
    credential: Credential
    svid: KeyedSvid

    @property
    def identity(self) -> NodeIdentity:
        return NodeIdentity.from_seed(self.seed)


class Mesh:
    """The dealer's: root, signers and a coordinator."""

    def __init__(self) -> None:
        self.now = int(time.time())
        identities = {seed: NodeIdentity.from_seed(seed) for seed in (bytes([n]) * 32 for n in range(1, 7))}
        *signers, self.coordinator_seed = identities
        coefficients = random_coefficients(THRESHOLD, secrets.token_bytes)
        self.secrets: dict[bytes, Scalar] = {
            seed: evaluate(coefficients, identifier_of(identities[seed].id)) for seed in signers
        }
        rows = [(identifier_of(identities[seed].id), base_mul(part)) for seed, part in self.secrets.items()]
        self.group = group_key(base_mul(coefficients[0]), THRESHOLD, rows)
        held = [
            KeyShare(self.group, identifier_of(identities[seed].id), Secret(part))
            for seed, part in self.secrets.items()
        ]
        self.authority = HeldAuthority(held, secrets.token_bytes)
        self.root = root_certificate(self.authority, DOMAIN, self.now)
        self.people = {seed: self._person(seed, identity) for seed, identity in identities.items()}

    def _person(self, seed: bytes, identity: NodeIdentity) -> Person:
        credential = found(
            self.authority, identity, f"node-{seed[0]}", trust_domain=DOMAIN, now=self.now,
            entropy=secrets.token_bytes,
        )  # fmt: skip
        key = new_leaf_key(secrets.token_bytes)
        request = request_svid(identity, credential, spiffe_node(DOMAIN, identity.id), key, self.now)
        der = issue_svid(
            self.authority, self.root, request, trust_domain=DOMAIN, now=self.now, entropy=secrets.token_bytes,
            revoked=RevocationSet(self.group.public),
        )  # fmt: skip
        svid = keyed(der, key, root_public=self.group.public, trust_domain=DOMAIN, now=self.now)
        return Person(seed=seed, credential=credential, svid=svid)


class Clocked:
    """CPU time spent in calls."""

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0

    def around(self, work: Callable[..., object]) -> Callable[..., object]:
        def clocked(*arguments: object, **fields: object) -> object:
            start = time.thread_time()
            try:
                return work(*arguments, **fields)
            finally:
                self.seconds += time.thread_time() - start
                self.calls += 1

        return clocked


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# ------------------------------------------------------------------ the processes


class Peer:
    """What of a peer takes part, in the process that calls this."""

    def __init__(self, mesh: Mesh, person: Person) -> None:
        self.mesh, self.person = mesh, person
        self.rules = Rules(
            root_public=mesh.group.public, root_certificate=mesh.root, trust_domain=DOMAIN,
            revoked=RevocationSet(mesh.group.public), ledger=TokenLedger(),
        )  # fmt: skip
        node = person.identity.id
        secret = mesh.secrets.get(person.seed)
        share = None if secret is None else KeyShare(mesh.group, identifier_of(node), Secret(secret))
        self.custody = Given(mesh.group, share)
        spending = Spending(self.rules.ledger, _store, settled=Settled, newest=lambda: 0)
        self.cosigner = Cosigner(
            custody=self.custody, rules=self.rules, node=node, spending=spending, now=time.time,
            entropy=secrets.token_bytes, member_of=node_of, applicants=Applicants(each=10**9, together=10**9),
        )  # fmt: skip
        self.ports: dict[bytes, int] = {}
        self.channels = Channels(
            bundle=TrustBundle(DOMAIN, [mesh.root]),
            revoked=self.rules.revoked,
            hello=lambda: Hello(root_certificate=mesh.root, issues=True, signers=()),
            feed=lambda _input: None,
            issuer=self.issuer(),
            enforcement=Enforcement(heads=dict, enforces=lambda _dots: True, node_of=node_of),
        )
        self.channels.handle(SIGN, self.cosigner.serve)
        self.channels.present(person.svid)

    def signing(self) -> Signing:
        """A coordinator without streams and commitments."""
        return Signing(
            custody=self.custody, cosigner=self.cosigner, node=self.person.identity.id, dial=self.dial,
            may_sign=lambda _node: True, rng=random.Random(1), entropy=secrets.token_bytes, config=PATIENT,
        )  # fmt: skip

    def issuer(self, signing: Signing | None = None) -> Issuer:
        return Issuer(signing=signing or self.signing(), rules=self.rules, now=time.time)

    async def dial(self, node: bytes) -> FrameStream:
        stream = await connect(("127.0.0.1", self.ports[node]), self.channels.context_for(node))
        await greet(stream, SIGN)
        return stream


async def _store(_spends: Sequence[Spend]) -> None:
    raise AssertionError("nobody joins here")


async def sign_for_others(mesh: Mesh, person: Person, pipe: Connection) -> None:
    """A signer: says where it listens, and at each word what it has spent until now."""
    judging, signing = Clocked(), Clocked()
    peer = Peer(mesh, person)
    machine = peer.cosigner._signer
    with (
        patch.object(cosigner_module, "judge", judging.around(judge)),
        patch.object(machine, "_sign", signing.around(machine._sign)),
    ):
        await peer.channels.listen("127.0.0.1", 0)
        pipe.send(peer.channels.port)
        while await asyncio.to_thread(pipe.recv):
            pipe.send((cpu_s(), judging.seconds, signing.seconds, signing.calls))
        await peer.channels.close()


def _signer(mesh: Mesh, person: Person, pipe: Connection) -> None:
    asyncio.run(sign_for_others(mesh, person, pipe))


class Signers:
    """The five processes."""

    def __init__(self, mesh: Mesh) -> None:
        context = multiprocessing.get_context("fork")
        self.pipes: list[Connection] = []
        self._processes = []
        for seed in mesh.secrets:
            here, there = context.Pipe()
            process = context.Process(target=_signer, args=(mesh, mesh.people[seed], there))
            process.start()
            self.pipes.append(here)
            self._processes.append(process)
        self.ports = {
            mesh.people[seed].identity.id: pipe.recv()
            for seed, pipe in zip(mesh.secrets, self.pipes, strict=True)
        }

    def spent(self) -> list[tuple[float, float, float, int]]:
        for pipe in self.pipes:
            pipe.send(True)
        return [pipe.recv() for pipe in self.pipes]

    def end(self) -> None:
        for pipe, process in zip(self.pipes, self._processes, strict=True):
            pipe.send(False)
            process.join()


# ------------------------------------------------------------------ measuring


async def measure(mesh: Mesh, signers: Signers, way: str, at_a_time: int, count: int) -> Row:
    """One row."""
    peer = Peer(mesh, mesh.people[mesh.coordinator_seed])
    peer.ports = signers.ports
    key = new_leaf_key(secrets.token_bytes)
    spiffe = spiffe_workload(DOMAIN, "default", "shop")
    identity, credential = peer.person.identity, peer.person.credential
    took_s: list[float] = []
    shared = peer.signing()

    async def certificate() -> None:
        signing = shared if way == "warm" else peer.signing()
        start = time.perf_counter()
        await peer.issuer(signing).svid(request_svid(identity, credential, spiffe, key, time.time()))
        took_s.append(time.perf_counter() - start)
        if signing is not shared:
            await signing.close()

    async def worker(number: int) -> None:
        for _ in range(number):
            await certificate()

    await asyncio.gather(*(worker(2) for _ in range(at_a_time)))  # not counted: it opens streams
    took_s.clear()
    before, here, start = signers.spent(), cpu_s(), time.perf_counter()
    await asyncio.gather(*(worker(count // at_a_time) for _ in range(at_a_time)))
    elapsed, here = time.perf_counter() - start, cpu_s() - here
    after, made = signers.spent(), len(took_s)
    await shared.close()
    total, judged, signed, shares = (
        sum(row[at] for row in after) - sum(row[at] for row in before) for at in range(4)
    )
    return Row(
        way=way,
        at_a_time=at_a_time,
        certificates_per_s=made / elapsed,
        latency_ms=1000 * statistics.median(took_s),
        coordinator=1000 * here / made,
        signer=1000 * total / made / SIGNERS,
        judging=1000 * judged / shares,
        signing=1000 * signed / shares,
    )


async def measure_all(mesh: Mesh, signers: Signers, count: int) -> list[Row]:
    rows = []
    for way, at_a_time in (("warm", 1), ("warm", 8), ("warm", 32), ("cold", 1), ("cold", 8)):
        print(f"{way}, {at_a_time} at a time ...", file=sys.stderr)
        rows.append(await measure(mesh, signers, way, at_a_time, count))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--certificates", type=int, default=300)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    mesh = Mesh()
    signers = Signers(mesh)
    try:
        rows = asyncio.run(measure_all(mesh, signers, options.certificates))
    finally:
        signers.end()
    cold = next(row for row in rows if (row.way, row.at_a_time) == ("cold", 1))
    renewals = PEERS * IDENTITIES_EACH
    percent = 100 * renewals * cold.signer / 1000 / HALF_LIFE_S
    if options.output == "json":
        print(json.dumps({"rows": [asdict(row) for row in rows], "renewing_percent": percent}, indent=2))
        return
    print(
        "way   at a time  certificates/s   latency |"
        " CPU a certificate: coordinator  each signer | a share: judging  signing"
    )
    for row in rows:
        print(
            f"{row.way:5} {row.at_a_time:9} {row.certificates_per_s:15.0f} {row.latency_ms:6.1f} ms |"
            f" {row.coordinator:30.2f} ms {row.signer:9.2f} ms | {row.judging:14.2f} ms {row.signing:5.2f} ms"
        )
    print(
        f"\n{PEERS} peers, {IDENTITIES_EACH} identities each, in {HALF_LIFE_S:.0f} s: {renewals} cold certificates,"
        f" {percent:.2f} % of each signer's core"
    )


if __name__ == "__main__":
    main()
