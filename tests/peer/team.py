"""Three of five signers and other members of one mesh, each listening on a loopback port, with real streams between
them. A seat can be slow, lie, stop, and come back."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from peer.channels import Channels, node_of
from peer.cosigner import Cosigner
from peer.enforcement import Enforcement
from peer.handover import Handover, Settled
from peer.io.stream import SIGN, SPENT, FrameStream, Hello, StreamError, connect, greet
from tests.peer.signers import Parts, parts
from tests.trust.ceremony.network import DOMAIN, founded, outcome, reshare, shares_of
from trust.admission import Spend, create_token, parse_token, request_join
from trust.coordinator import CoordinatorConfig
from trust.epoch import EpochRecord
from trust.errors import RevokedError
from trust.group import Secret
from trust.groupkey import KeyShare
from trust.held import HeldAuthority
from trust.identity import NodeIdentity, spiffe_workload
from trust.issuance import SvidRequest, request_svid
from trust.roast import SigningConfig
from trust.sessionwire import ShareReply, ToCoordinator, ToSigner
from trust.svid import new_leaf_key

PATIENCE_S = 0.1
QUICK = CoordinatorConfig(signing=SigningConfig(patience_s=PATIENCE_S, timeout_s=30.0))

Answer = Callable[[bytes, ToSigner], Awaitable[ToCoordinator]]


def fresh(share: KeyShare) -> KeyShare:
    """The same share as an object of its own: whoever signs wipes what it drops."""
    return KeyShare(share.group, share.identifier, Secret(share.secret.expose()))


class Watched(Cosigner):
    """A cosigner that may be made to lie. Its seat sees what shares it gives."""

    def __init__(self, seat: "Seat", **parts: Any) -> None:
        super().__init__(**parts)
        self._seat = seat

    async def answer(self, coordinator: bytes, message: ToSigner) -> ToCoordinator:
        seat, honest = self._seat, super().answer
        if seat.behave is None:
            reply = await honest(coordinator, message)
        else:
            reply = await seat.behave(seat, honest, coordinator, message)
        if isinstance(reply, ShareReply):
            seat.given.append(reply)
        return reply


@dataclass
class Seat:
    """One member. `disk` is what it has stored; `given` are the shares that left it, with their commitments."""

    team: "Team"
    identity: NodeIdentity
    person: Any
    port: int = 0
    disk: list[Spend] = field(default_factory=list)
    settled: Settled = field(default_factory=lambda: Settled(epoch=0))
    given: list[ShareReply] = field(default_factory=list)
    channels: Channels | None = None
    parts: Parts = field(init=False)
    handover: Handover = field(init=False)
    lives: int = 0
    behave: Callable[["Seat", Answer, bytes, ToSigner], Awaitable[ToCoordinator]] | None = None

    @property
    def node(self) -> bytes:
        return self.identity.id

    async def start(self) -> None:
        """Begin a life: what was in memory before is gone."""
        live, team = self.team.live, self.team
        self.lives += 1
        rules = live.rules()
        for spend in self.disk:
            rules.ledger.record(spend)
        self.parts = made = parts(
            self.node, rules, live.now, self._store, dial=lambda node: team.dial(self, node, SIGN),
            member_of=node_of, may_sign=self._may_sign, settled=lambda: self.handover.settled, config=QUICK,
            seed=self.lives, make=partial(Watched, self),
        )  # fmt: skip
        self.handover = Handover(
            custody=made.custody, node=self.node, ledger=rules.ledger, store=self._store, settled=self.settled,
            settle=self._settle, dial=lambda node: team.dial(self, node, SPENT), member_of=node_of, now=live.now,
        )  # fmt: skip
        made.cosigner._spending = self.handover.spending
        for record, shares in team.epochs:
            made.custody.learn(record)
            if self.node in shares:
                made.custody.take(record, fresh(shares[self.node]))
        self.channels = Channels(
            bundle=live.bundle,
            revoked=live.revoked,
            hello=lambda: Hello(root_certificate=live.root, issues=True, signers=()),
            feed=lambda _input: None,
            issuer=made.issuer,
            enforcement=Enforcement(heads=dict, enforces=lambda _dots: True, node_of=node_of),
        )
        self.channels.handle(SIGN, made.cosigner.serve)
        self.channels.handle(SPENT, self.handover.serve)
        self.channels.present(self.person.svid)
        await self.channels.listen("127.0.0.1", self.port)
        self.port = self.channels.port

    async def stop(self) -> None:
        if self.channels is not None:
            await self.parts.signing.close()
            await self.channels.close()
            self.channels = None

    def _may_sign(self, node: bytes) -> bool:
        try:
            self.team.live.revoked.check_signer(DOMAIN, node)
        except RevokedError:
            return False
        return True

    async def _store(self, spends: Sequence[Spend]) -> None:
        await asyncio.sleep(0)
        self.disk += spends

    async def _settle(self, settled: Settled) -> None:
        self.settled = settled


class Team:
    """`seats` are the five signers; `member(number)` adds others."""

    def __init__(self, live_mesh: Any, count: int = 5) -> None:
        self.record, self.shares, self.signers = founded(count)
        held = [self.shares[each.id] for each in self.signers]
        self.live = live_mesh(authority=HeldAuthority(held, secrets.token_bytes))
        self.epochs: list[tuple[EpochRecord, dict[bytes, KeyShare]]] = [(self.record, self.shares)]
        self.all: dict[bytes, Seat] = {}
        self.seats = [self._seat(each, f"signer-{at}") for at, each in enumerate(self.signers)]

    def _seat(self, identity: NodeIdentity, name: str) -> Seat:
        seat = Seat(self, identity, self.live.person(identity, name))
        self.all[identity.id] = seat
        return seat

    async def start(self) -> None:
        for seat in self.seats:
            await seat.start()

    async def member(self, number: int) -> Seat:
        seat = self._seat(NodeIdentity.from_seed(bytes([number]) * 32), f"node-{number}")
        await seat.start()
        return seat

    async def close(self) -> None:
        for seat in self.all.values():
            await seat.stop()

    async def dial(self, caller: Seat, node: bytes, purpose: bytes) -> FrameStream:
        if node not in self.all:
            raise StreamError("it is not a member that is known here")
        assert caller.channels is not None
        stream = await connect(("127.0.0.1", self.all[node].port), caller.channels.context_for(node))
        await greet(stream, purpose)
        return stream

    def reshared(
        self, new: Iterable[NodeIdentity], seed: int = 1
    ) -> tuple[EpochRecord, dict[bytes, KeyShare]]:
        """The next epoch, which nobody has heard of yet."""
        record, shares = self.epochs[-1]
        old = [self.all[node].identity for node in record.value.ids]
        network, _ = reshare(record, shares, old, list(new), seed=seed)
        assert network.run(60)
        return outcome(network), shares_of(network)

    def tell(self, record: EpochRecord, shares: dict[bytes, KeyShare], seats: Iterable[Seat]) -> None:
        """The epoch reaches these."""
        for seat in seats:
            if seat.node in shares:
                seat.parts.custody.take(record, fresh(shares[seat.node]))
            else:
                seat.parts.custody.learn(record)

    # ------------------------------------------------------------------ requests

    def token(self, uses: int = 1, *, ttl_s: float = 600, by: Any = None) -> Any:
        maker = by or self.seats[0].person
        self._tokens = getattr(self, "_tokens", 0) + 1
        made = create_token(
            maker.identity, maker.credential, root_public=self.live.authority.root_public,
            seeds=[("127.0.0.1", 1)], services=["default/shop"], now=self.live.now(),
            entropy=lambda n: bytes([self._tokens] * n), ttl_s=ttl_s, uses=uses, publish=True, invite=False,
        )  # fmt: skip
        return parse_token(made.text)

    def join(self, token: Any, number: int) -> bytes:
        """An encoded request to join by newcomer `number`."""
        identity = NodeIdentity.from_seed(bytes([100 + number]) * 32)
        encoded: bytes = request_join(identity, token, f"new-{number}", self.live.now()).encode()
        return encoded

    def svid(self, seat: Seat, account: str = "shop") -> SvidRequest:
        key = new_leaf_key(lambda n: b"k" * n)
        spiffe = spiffe_workload(DOMAIN, "default", account)
        return request_svid(seat.identity, seat.person.credential, spiffe, key, self.live.now())
