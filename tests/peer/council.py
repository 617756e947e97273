"""Peers that hold ceremonies, without sockets: real disks, a clock that tests turn, letters that arrive at once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from peer.ceremonies import Ceremonies
from peer.custody import Custody
from peer.io.keys import Keys
from tests.trust.ceremony.network import DOMAIN, founded, people
from trust.ceremony.events import Members
from trust.ceremony.growth import SignerRules
from trust.epoch import EpochRecord
from trust.groupkey import KeyShare
from trust.identity import NodeIdentity

STEP_S = 0.05


def copied(share: KeyShare) -> KeyShare:
    """The same share as an object of its own: custody wipes what it drops."""
    return KeyShare(share.group, share.identifier, type(share.secret)(share.secret.expose()))


@dataclass
class Opinion:
    """What a peer thinks of who should sign; tests set it."""

    wanted: tuple[bytes, ...] | None = None
    known: frozenset[bytes] = frozenset()
    barred: frozenset[bytes] = frozenset()
    gone: frozenset[bytes] = frozenset()

    def wish(self, record: EpochRecord) -> tuple[bytes, ...] | None:
        return None if self.wanted is None or self.wanted == record.value.keys else self.wanted

    def members(self, _record: EpochRecord | None) -> Members:
        return Members(known=self.known, barred=self.barred, away=self.gone, gone=self.gone)


@dataclass
class Seat:
    identity: NodeIdentity
    keys: Keys
    custody: Custody
    ceremonies: Ceremonies
    opinion: Opinion


@dataclass
class Council:
    """Peers by node id. `alter` sees each letter and may drop it (None)."""

    directory: Path
    root: bytes
    rules: SignerRules
    now: float = 1000.0
    seats: dict[bytes, Seat] = field(default_factory=dict)
    down: set[bytes] = field(default_factory=set)
    letters: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    alter: Callable[[bytes, bytes, bytes], bytes | None] = lambda _source, _target, letter: letter

    def seat(self, identity: NodeIdentity) -> Seat:
        """Start a peer, on the disk it has."""
        keys = Keys.open(self.directory / identity.id.hex())
        custody = Custody.load(keys, self.root, identity=identity, trust_domain=DOMAIN)
        opinion = Opinion(known=frozenset(self.seats) | {identity.id})
        if identity.id in self.seats:
            opinion = self.seats[identity.id].opinion
        ceremonies = Ceremonies(
            custody=custody, keys=keys, identity=identity, rules=self.rules, judgement=opinion,
            send=lambda node, letter: self.post(identity.id, node, letter), now=lambda: self.now,
            unix=lambda: 1_700_000_000 + self.now,
        )  # fmt: skip
        seat = self.seats[identity.id] = Seat(identity, keys, custody, ceremonies, opinion)
        self.down.discard(identity.id)
        return seat

    def post(self, source: bytes, target: bytes, letter: bytes) -> None:
        altered = self.alter(source, target, letter)
        if altered is not None:
            self.letters.append((source, target, altered))

    async def turn(self) -> None:
        """Every peer does what is due; then the letters arrive; where there are none, time passes."""
        for node, seat in list(self.seats.items()):
            if node not in self.down:
                await seat.ceremonies.turn()
        letters, self.letters = self.letters, []
        for source, target, letter in letters:
            if target in self.seats and target not in self.down:
                self.seats[target].ceremonies.receive(source, letter)
        if not letters:
            self.now += STEP_S

    async def until(self, holds: Callable[[], bool], within_s: float = 120.0) -> None:
        end = self.now + within_s
        while not holds():
            assert self.now < end, f"not within {within_s:g} s"
            await self.turn()

    async def after(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            await self.turn()

    def crash(self, node: bytes) -> None:
        """What it had in memory is gone."""
        self.down.add(node)

    def at(self, epoch: int, among: Iterable[bytes] | None = None) -> Callable[[], bool]:
        """Whether these (all that run) know that epoch, or a later one."""
        nodes = list(self.seats) if among is None else list(among)
        return lambda: all(
            (record := self.seats[node].custody.record) is not None and record.epoch >= epoch
            for node in nodes
            if node not in self.down
        )


def council(
    directory: Path, signers: int, others: int = 0, rules: SignerRules | None = None
) -> tuple[Council, list[NodeIdentity]]:
    """A group that exists, and members that are not in it; they know each other."""
    rules = rules or SignerRules()
    record, shares, old = founded(signers, rules=rules if rules.signers else None)
    everyone = [*old, *people(others, 400)]
    made = Council(directory, record.group.public, rules)
    for each in everyone:
        seat = made.seat(each)
        seat.custody.learn(record)
        if each.id in shares:
            seat.custody.take(record, copied(shares[each.id]))
    known(made.seats)
    return made, everyone


def known(seats: Mapping[bytes, Seat]) -> None:
    """They all know each other."""
    for seat in seats.values():
        seat.opinion.known = frozenset(seats)
