"""Byzantine participants: real machines that lie in one way each."""

from dataclasses import replace
from typing import Any

from trust.ceremony.bodies import (
    Accepted,
    Dealt,
    Join,
    Proved,
    Shared,
    decode_dealt,
    decode_join,
    decode_opening,
)
from trust.ceremony.events import Send
from trust.ceremony.evidence import accusation
from trust.ceremony.machine import Ceremony
from trust.ceremony.statement import Kind, Said, Statement, decode_frame, state
from trust.group import base_mul, scalar_of
from trust.keygen import Package


class Liar(Ceremony):
    """Tells each recipient what `lie` makes of its statement: another one, several, or nothing."""

    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        return [said]

    def altered(self, said: Statement, body: bytes) -> Statement:
        return state(self._identity, said.ceremony, said.attempt, said.kind, body, said.recipient)

    def _tell(self, said: Statement) -> None:
        nodes = [said.recipient] if said.kind is Kind.SHARE else sorted(self._audience)
        for at, node in enumerate(node for node in nodes if node != self._me):
            for each in self.lie(said, node, even=at % 2 == 0):
                self._send(node, Said(statement=each))

    def _answer(self, now: float, node: bytes, want: Any) -> None:
        before = len(self._out)
        super()._answer(now, node, want)
        answers, self._out = self._out[before:], self._out[:before]
        at = sorted(self._audience | {node}).index(node)
        for output in answers:
            assert isinstance(output, Send)
            frame = decode_frame(output.data)
            if isinstance(frame, Said) and frame.statement.node == self._me:
                for each in self.lie(frame.statement, node, even=at % 2 == 0):
                    self._send(node, Said(statement=each))
            else:
                self._out.append(output)


class BadProof(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind is not Kind.DEAL:
            return [said]
        dealt = decode_dealt(said.body)
        proof = dealt.package.proof[:32] + scalar_of(7)
        package = Package(commitment=dealt.package.commitment, proof=proof)
        return [self.altered(said, Dealt(opening=dealt.opening, package=package).encode())]


class BadShareToOne(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind is not Kind.SHARE or node != min(set(self._attempt.receivers) - {self._me}):
            return [said]
        body = Shared(opening=self._attempt.opening_digest, share=scalar_of(12345)).encode()
        return [self.altered(said, body)]


class TwoDealings(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind is not Kind.DEAL or even:
            return [said]
        dealt = decode_dealt(said.body)
        commitment = (*dealt.package.commitment[:-1], base_mul(scalar_of(99)))
        package = Package(commitment=commitment, proof=dealt.package.proof)
        return [self.altered(said, Dealt(opening=dealt.opening, package=package).encode())]


class TwoAcceptances(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind is not Kind.ACCEPT or even:
            return [said]
        dealings = self._attempt.dealings()
        assert dealings is not None
        accepted = Accepted(
            transcript=dealings.transcript, hiding=base_mul(scalar_of(5)), binding=base_mul(scalar_of(6))
        )
        return [self.altered(said, accepted.encode())]


class WrongProve(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind is not Kind.PROVE:
            return [said]
        digest = self._attempt.accepted()
        assert digest is not None
        return [self.altered(said, Proved(accepted=digest, share=scalar_of(3)).encode())]


class WrongVotes(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        return [self.altered(said, bytes(32))] if said.kind in {Kind.PREPARE, Kind.CONFIRM} else [said]


class TwoVotes(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        both = said.kind in {Kind.PREPARE, Kind.CONFIRM} and even
        return [self.altered(said, b"\1" * 32)] if both else [said]


class TwoJoins(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind is not Kind.JOIN or even:
            return [said]
        join = decode_join(said.body)
        return [self.altered(said, Join(able=not join.able).encode())]


class Leaver(Liar):
    """Leaves each attempt as soon as it is open."""

    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind not in {Kind.DEAL, Kind.ECHO, Kind.ACCEPT}:
            return [said]
        body = Join(able=True).encode()
        return [state(self._identity, said.ceremony, said.attempt + 1, Kind.JOIN, body)]


class Jumper(Liar):
    """Claims to be far ahead."""

    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        body = Join(able=True).encode()
        return [said, state(self._identity, said.ceremony, said.attempt + 1000, Kind.JOIN, body)]


class FalseComplaint(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        victim = next((each for each in self._attempt.said.values() if each.node != self._me), None)
        if said.kind is not Kind.ECHO or victim is None:
            return [said]
        return [
            said,
            state(self._identity, said.ceremony, said.attempt, Kind.ACCUSE, accusation(victim, victim)),
        ]


class FalseComplaintOfShare(Liar):
    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        attempt = self._attempt
        share = next(
            (each for each in attempt.said.values() if each.kind is Kind.SHARE and each.node != self._me),
            None,
        )
        if said.kind is not Kind.ACCEPT or share is None or attempt.opened is None:
            return [said]
        deal = attempt.get(Kind.DEAL, share.node)
        assert deal is not None
        body = accusation(attempt.opened, deal, share)
        return [said, state(self._identity, said.ceremony, said.attempt, Kind.ACCUSE, body)]


class TwoOpenings(Liar):
    """As a leader, shows half of the others another threshold."""

    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind is not Kind.OPEN or even:
            return [said]
        opening = decode_opening(said.body)
        return [self.altered(said, replace(opening, joins=tuple(reversed(opening.joins))).encode())]


class Denier(Liar):
    """Confirms, and joins the next attempt as if it had not."""

    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        if said.kind is Kind.CONFIRM:
            body = Join(able=True).encode()
            return [said, state(self._identity, said.ceremony, said.attempt + 1, Kind.JOIN, body)]
        return [said]


class Garbage(Liar):
    """Well signed nonsense in every body."""

    def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
        return [self.altered(said, b"\xff" * 40)]


def silent_from(kind: Kind) -> type[Liar]:
    """A participant that says nothing of `kind` and later ones."""

    class Silent(Liar):
        def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
            return [] if said.kind >= kind else [said]

    Silent.__name__ = f"SilentFrom{kind.name.title()}"
    return Silent


def silent_to_some(kind: Kind) -> type[Liar]:
    """A participant whose statements of `kind` reach only half of the others."""

    class SilentToSome(Liar):
        def lie(self, said: Statement, node: bytes, even: bool) -> list[Statement]:
            return [] if said.kind is kind and even else [said]

    SilentToSome.__name__ = f"SilentToSome{kind.name.title()}"
    return SilentToSome


CONVICTED: list[type[Liar]] = [
    BadProof, BadShareToOne, TwoDealings, TwoAcceptances, TwoVotes, FalseComplaint,
    FalseComplaintOfShare, TwoOpenings,
]  # fmt: skip
UNPROVABLE: list[type[Liar]] = [
    WrongProve, TwoJoins, Denier, WrongVotes, Leaver, Jumper, Garbage,
    *(silent_from(kind) for kind in Kind if kind is not Kind.ACCUSE),
    *(silent_to_some(kind) for kind in Kind if kind is not Kind.ACCUSE),
]  # fmt: skip
LIARS = CONVICTED + UNPROVABLE
