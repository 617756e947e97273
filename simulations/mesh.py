"""The mesh the simulated hosts belong to: its root, the keys and credentials of its members, and what a node judges by.

Two kinds: `RealMesh` has Ed25519 keys and credentials that one authority signed, as a real mesh has; `ModelMesh` has
the stand-ins of simulations/crypto.py. Nodes are told which by `crypto`, and cannot tell otherwise.

Invariant: the keys of a member are a function of the seed, its index and its number (how often it lost them).
"""

from collections import ChainMap
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from hashlib import sha512
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeAlias, TypeVar, cast

from gossip.census import Census
from gossip.crypto import REAL, Crypto
from peer.records import Registry
from simulations.crypto import FREE, Costs, Meter, ModelCrypto, ModelIdentity
from simulations.randomness import digest
from trust.admission import found
from trust.authority import SoleAuthority
from trust.ceremony.resharing import scalar_of_seed
from trust.credential import SERIAL_BYTES, Credential
from trust.group import Scalar
from trust.identity import NodeIdentity
from trust.revocation import RevocationSet

TRUST_DOMAIN: Final = "simulated.mesh"
DRIFT_MS_MAX: Final = 5000
NOBODY: Final[Mapping[bytes, Credential]] = MappingProxyType({})

V = TypeVar("V")

Identity: TypeAlias = Any  # a NodeIdentity, or what the node takes for one


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Members that know one another from the start: what each of them would hold, held once."""

    census: Census
    credentials: Mapping[bytes, Credential]
    introductions: Mapping[bytes, bytes]


class Mesh(Protocol):
    """What hosts are made of."""

    crypto: Crypto
    costs: Costs
    is_real: bool

    def identity(self, index: int, number: int) -> Identity:
        """The keys of host `index`, made for the `number`-th time."""

    def credential(self, identity: Identity, name: str, now: float) -> Credential:
        """The root's word for them."""

    def registry(self, known: Mapping[bytes, Credential] = NOBODY) -> Registry:
        """A registry that knows `known`, which it shares, and keeps to itself what it learns."""


class RealMesh:
    """Real keys and signatures. They take real time and no virtual time but what `costs` says of a step."""

    def __init__(self, seed: int, *, ttl_s: int, input_s: float = 0.0) -> None:
        self.crypto: Crypto = REAL
        self.is_real = True
        self.costs = replace(FREE, input_s=input_s)
        self._seed = seed
        self._ttl_s = ttl_s
        self._authority = SoleAuthority.from_seed(digest(seed, "root"), holder=bytes(16))

    def identity(self, index: int, number: int) -> Identity:
        return NodeIdentity.from_seed(digest(self._seed, "identity", index, number))

    def credential(self, identity: Identity, name: str, now: float) -> Credential:
        return found(
            self._authority,
            identity,
            name,
            trust_domain=TRUST_DOMAIN,
            now=int(now),
            entropy=_serials(self._seed, identity.id, now),
            ttl_s=self._ttl_s,
        )

    def root_scalar(self) -> Scalar:
        """The root's secret, for who deals it out in shares."""
        return scalar_of_seed(sha512(digest(self._seed, "root")).digest())

    def registry(self, known: Mapping[bytes, Credential] = NOBODY) -> Registry:
        return _registry(self._authority.root_public, self.crypto, known)


class ModelMesh:
    """Stand-ins; what they cost in virtual time is charged to `meter`."""

    def __init__(self, seed: int, *, ttl_s: int, costs: Costs, meter: Meter) -> None:
        self.crypto: Crypto = ModelCrypto(costs, meter)
        self.is_real = False
        self.costs = costs
        self._seed = seed
        self._ttl_s = ttl_s
        self._meter = meter
        self._root = ModelIdentity(digest(seed, "root"), FREE, meter)

    def identity(self, index: int, number: int) -> Identity:
        return ModelIdentity(digest(self._seed, "identity", index, number), self.costs, self._meter)

    def credential(self, identity: Identity, name: str, now: float) -> Credential:
        credential = Credential(
            trust_domain=TRUST_DOMAIN,
            public_key=identity.public_key,
            agreement_key=identity.agreement_key,
            name=name,
            services=("*/*",),
            publish=True,
            invite=True,
            serial=_serials(self._seed, identity.id, now)(SERIAL_BYTES),
            issued_at=int(now),
            expires_at=int(now) + self._ttl_s,
        )
        return credential.signed(self._root.sign(credential.signing_bytes()))

    def registry(self, known: Mapping[bytes, Credential] = NOBODY) -> Registry:
        return _registry(self._root.public_key, self.crypto, known)


def _registry(root: bytes, crypto: Crypto, known: Mapping[bytes, Credential]) -> Registry:
    registry = Registry(
        root=root,
        trust_domain=TRUST_DOMAIN,
        drift_ms=DRIFT_MS_MAX,
        revocations=RevocationSet(root),
        crypto=crypto,
    )
    if known:
        registry.credentials = layer(known)
    return registry


def layer(shared: Mapping[bytes, V]) -> MutableMapping[bytes, V]:
    """What one node knows: what all of them knew from the start, held once, and its own finds on top."""
    return ChainMap({}, cast(MutableMapping[bytes, V], shared))  # writes go to the first


def _serials(seed: int, node: bytes, now: float) -> Callable[[int], bytes]:
    return lambda count: digest(seed, "serial", node.hex(), int(now))[:count]
