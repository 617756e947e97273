"""Choosing an endpoint: power of two choices over peak-EWMA latency, and the simpler balancers.

Peak-EWMA is Linkerd's (tower-balance `PeakEwma`, after Finagle): an endpoint costs its latency estimate times the
requests it has in flight plus one. A latency above the estimate replaces it at once (the peak), one below is
averaged in with weight 1 - exp(-elapsed / 10 s), and while nothing is heard the estimate decays to zero, so that a
slow endpoint is tried again. An endpoint never heard of starts at 30 ms. Power of two choices (Mitzenmacher 2001):
of two distinct endpoints drawn at random the cheaper one gets the request.

An error is not a latency: taken as one, a backend that fails in a millisecond would draw all the load. A failure
therefore counts as an answer that took what is usual in the cluster, or as long as it did take if that is longer, and
never lowers the estimate. At first it is not punished beyond that: to take a failing endpoint out is the outlier
detector's work, and one that balancing starves is never found out. Only when it fails more often in a row than it takes
to be ejected (there was no room, or no detector) does each failure double the estimate, so that it is tried at ever
longer intervals: with few requests in flight, fast failures would else win every comparison.

Which endpoints are available follows Envoy: healthy (active checks, membership) and not ejected; when fewer than the
panic threshold are, health is disregarded and all take part. With locality preferred, endpoints of the own zone take
all the requests while at least 1/1.4 of them are available, and their share falls with their health below that.

Invariant: `choose` does no more work than the list of endpoints it draws from needs (constant but for retries), and
never draws an endpoint out of `avoid` while another is available.
"""

import random
from collections.abc import Collection, Mapping
from math import exp
from typing import Final, Protocol, assert_never

from proxy.snapshot import Balancer, Cluster, Endpoint

LATENCY_INITIAL_S: Final = 0.030
LATENCY_DECAY_S: Final = 10.0
LATENCY_MAX_S: Final = 60.0  # a bound for the estimate of an endpoint that only fails
USUAL_WEIGHT_MIN: Final = 0.01
OVERPROVISIONING: Final = 1.4  # Envoy's: a zone is full strength down to 1/1.4 of its endpoints


class UsualLatency:
    """The latency of a cluster's successes, averaged over about the last hundred."""

    __slots__ = ("_weight", "seconds")

    def __init__(self) -> None:
        self.seconds = LATENCY_INITIAL_S
        self._weight = 1.0

    def heard(self, latency_s: float) -> None:
        """A success took `latency_s`. The first ones count as much as all before them."""
        weight = self._weight
        self.seconds += (latency_s - self.seconds) * weight
        if weight > USUAL_WEIGHT_MIN:
            self._weight = max(USUAL_WEIGHT_MIN, weight / (1.0 + weight))


class EndpointLoad:
    """What this worker knows of an endpoint's load. `pending` is the number of requests in flight to it, `failures`
    how many in a row have failed, `usual` what the endpoints of its cluster have in common, `patience` how many
    failures in a row are the outlier detector's."""

    __slots__ = ("_estimate_s", "_stamp", "_usual", "endpoint", "failures", "patience", "pending")

    def __init__(self, endpoint: Endpoint, usual: UsualLatency, now: float) -> None:
        self.endpoint = endpoint
        self._usual = usual
        self.pending = 0
        self.patience = 0
        self.failures = 0
        self._estimate_s = LATENCY_INITIAL_S
        self._stamp = now

    def __repr__(self) -> str:
        return f"<EndpointLoad {self.endpoint.id} {self._estimate_s * 1000:.1f} ms, {self.pending} pending>"

    def started(self) -> None:
        """A request goes to this endpoint. Exactly one `finished` or `abandoned` follows."""
        self.pending += 1

    def finished(self, now: float, latency_s: float, failed: bool) -> None:
        """The attempt ended with a response head after `latency_s`, or failed (5xx or none at all)."""
        self.pending -= 1
        usual = self._usual
        if failed:
            self.failures += 1
            held_s = self._estimate_s if self.failures <= self.patience else 2.0 * self._estimate_s
            self._estimate_s = min(LATENCY_MAX_S, max(latency_s, held_s, usual.seconds))
            self._stamp = now
            return
        self.failures = 0
        usual.heard(latency_s)
        estimate_s = self._estimate_s
        if latency_s > estimate_s:
            self._estimate_s = min(LATENCY_MAX_S, latency_s)
        else:
            weight = exp((self._stamp - now) / LATENCY_DECAY_S)
            self._estimate_s = estimate_s * weight + latency_s * (1.0 - weight)
        self._stamp = now

    def abandoned(self) -> None:
        """The attempt ended without saying anything of the endpoint (the caller went away)."""
        self.pending -= 1

    def latency_s(self, now: float) -> float:
        """The decayed estimate."""
        return self._estimate_s * exp((self._stamp - now) / LATENCY_DECAY_S)

    def cost(self, now: float) -> float:
        """Peak-EWMA cost: lower is better."""
        return self._estimate_s * exp((self._stamp - now) / LATENCY_DECAY_S) * (self.pending + 1)


class _Draw(Protocol):
    def __call__(self, pool: list[EndpointLoad], now: float, rng: random.Random) -> EndpointLoad: ...


def _two(pool: list[EndpointLoad], rng: random.Random) -> tuple[EndpointLoad, EndpointLoad]:
    """Two distinct members of a pool of at least two. `int(random() * n)` is three times as fast as `randrange`."""
    size = len(pool)
    first = int(rng.random() * size)
    second = int(rng.random() * (size - 1))
    return pool[first], pool[second + (second >= first)]


def _draw_p2c_ewma(pool: list[EndpointLoad], now: float, rng: random.Random) -> EndpointLoad:
    if len(pool) == 1:
        return pool[0]
    one, other = _two(pool, rng)
    return one if one.cost(now) <= other.cost(now) else other


def _draw_least_request(pool: list[EndpointLoad], now: float, rng: random.Random) -> EndpointLoad:
    if len(pool) == 1:
        return pool[0]
    one, other = _two(pool, rng)
    return one if one.pending <= other.pending else other


def _draw_random(pool: list[EndpointLoad], now: float, rng: random.Random) -> EndpointLoad:
    return pool[int(rng.random() * len(pool))]


class _RoundRobin:
    """In turn; it starts anywhere, so that many workers do not march in step."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn: int | None = None

    def __call__(self, pool: list[EndpointLoad], now: float, rng: random.Random) -> EndpointLoad:
        turn = int(rng.random() * len(pool)) if self._turn is None else self._turn + 1
        self._turn = turn % len(pool)
        return pool[self._turn]


def _draw_for(balancer: Balancer) -> _Draw:
    match balancer:
        case "p2c_ewma":
            return _draw_p2c_ewma
        case "least_request":
            return _draw_least_request
        case "round_robin":
            return _RoundRobin()
        case "random":
            return _draw_random
        case _:
            assert_never(balancer)


class ClusterBalancer:
    """The endpoints of one cluster and their load, as one worker sees them. Belongs to the cluster's name and survives
    snapshot swaps (`update`)."""

    __slots__ = (
        "_by_id",
        "_draw",
        "_ejected",
        "_kind",
        "_near",
        "_near_share",
        "_pool",
        "_usual",
        "_zone",
        "cluster",
        "panic",
    )

    def __init__(self, cluster: Cluster, zone: str, now: float) -> None:
        self.cluster = cluster
        self.panic = False  # fewer endpoints are available than the panic threshold asks for
        self._usual = UsualLatency()
        self._zone = zone
        self._kind = cluster.balancer
        self._draw = _draw_for(cluster.balancer)
        self._by_id: dict[str, EndpointLoad] = {}
        self._ejected: Collection[str] = frozenset()
        self._pool: list[
            EndpointLoad
        ] = []  # who may be drawn (the far ones only, while there is a near tier)
        self._near: list[EndpointLoad] = []
        self._near_share = 0.0
        self.update(cluster, now)

    def __repr__(self) -> str:
        return f"<ClusterBalancer {self.cluster.name} {self._kind} {len(self._by_id)} endpoints>"

    @property
    def loads(self) -> Mapping[str, EndpointLoad]:
        """By endpoint id."""
        return self._by_id

    def update(self, cluster: Cluster, now: float) -> None:
        """Take over a new snapshot's cluster; known endpoints keep their load."""
        known, self._by_id = self._by_id, {}
        for endpoint in cluster.endpoints:
            load = known.get(endpoint.id)
            if load is None:
                load = EndpointLoad(endpoint, self._usual, now)
            else:
                load.endpoint = endpoint
            load.patience = cluster.outlier.consecutive_5xx if cluster.outlier.enabled else 0
            self._by_id[endpoint.id] = load
        if cluster.balancer != self._kind:
            self._kind = cluster.balancer
            self._draw = _draw_for(cluster.balancer)
        self.cluster = cluster
        self._rebuild()

    def eject(self, ejected: Collection[str]) -> None:
        """Which endpoint ids passive health has taken out: `OutlierDetector.ejected`, whenever it changed."""
        self._ejected = ejected
        self._rebuild()

    def choose(self, now: float, rng: random.Random, avoid: Collection[str] = ()) -> EndpointLoad | None:
        """The endpoint for the next attempt, not yet counted (`started`). `avoid`: ids tried before for this request,
        drawn again only when nothing else is available. None: no healthy endpoint (503, flag UH)."""
        pool = self._pool
        if self._near and (not pool or self._near_share >= 1.0 or rng.random() < self._near_share):
            pool = self._near
        if avoid:
            fresh = [load for load in pool if load.endpoint.id not in avoid]
            if not fresh and self._near:
                fresh = [load for load in (*self._near, *self._pool) if load.endpoint.id not in avoid]
            pool = fresh or pool
        if not pool:
            return None
        return self._draw(pool, now, rng)

    def _rebuild(self) -> None:
        everyone = list(self._by_id.values())
        ejected = self._ejected
        pool = [load for load in everyone if load.endpoint.healthy and load.endpoint.id not in ejected]
        self.panic = len(pool) * 100 < len(everyone) * self.cluster.panic_threshold_percent
        self._near, self._near_share = [], 0.0
        if self.panic:
            pool = everyone
        elif self.cluster.locality_preferred and self._zone:
            near = [load for load in pool if load.endpoint.zone == self._zone]
            near_total = sum(load.endpoint.zone == self._zone for load in everyone)
            if near:
                self._near = near
                self._near_share = min(1.0, OVERPROVISIONING * len(near) / near_total)
                pool = [load for load in pool if load.endpoint.zone != self._zone]
        self._pool = pool
