"""An order: the operator of one signer says that exactly these are to be the signers of the epoch to come.

Electors judge most changes by themselves (`bearing`). What goes further takes the operators of as many signers as have
the root together: fewer must not get it by a signature any more than by a lie. The right to govern does not come into
it. Those who found a mesh all govern, and one of them that is taken over would move the root by itself.

An order is signed with the signer's node key and bound to one ceremony, whose name follows from the record before: it
serves no other epoch and no other mesh, so it never is old. Of two of one signer the later one counts.

Orders overrule who keeps a seat and who gets one. They do not overrule revocations, nor the threshold, which follows
from the number of signers by the rules at each elector (`growth`).

Invariant: `agreed` is the same wherever the same orders were heard; each counts for one signer of today.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from trust.ceremony.bodies import cut
from trust.ceremony.electorate import DIGEST_BYTES, SIGNERS_MAX, Electorate, check_electors
from trust.codec import Field, Reader
from trust.errors import CeremonyError
from trust.identity import KEY_BYTES, SIGNATURE_BYTES, NodeIdentity, node_id, verify
from trust.selfproving import SelfProving

APPOINTMENT_BYTES_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Appointment(SelfProving):
    """See the module's theory. `sender` and `keys` are public keys, the latter by node id."""

    LABEL: ClassVar[bytes] = b"gossamer/appointment/1"

    ceremony: bytes
    sender: bytes
    keys: tuple[bytes, ...]
    given_at: int  # Unix s, by the sender's clock: to tell its orders apart
    signature: bytes = b"\0" * SIGNATURE_BYTES

    @property
    def node(self) -> bytes:
        """The sender's node id."""
        return node_id(self.sender)

    def _fields(self) -> list[Field]:
        return [self.ceremony, self.sender, b"".join(self.keys), self.given_at]


def appoint(identity: NodeIdentity, ceremony: bytes, keys: tuple[bytes, ...], given_at: int) -> Appointment:
    """This node's order, signed. Raises CeremonyError: these can be no signers."""
    check_electors(keys)
    order = Appointment(ceremony=ceremony, sender=identity.public_key, keys=keys, given_at=given_at)
    return replace(order, signature=identity.sign(order.signing_bytes()))


def decode_appointment(data: bytes) -> Appointment:
    """Inverse of `Appointment.encode`. Raises CeremonyError. Nothing is verified."""
    reader = Reader(
        data, count=5, bytes_max=APPOINTMENT_BYTES_MAX, what="an order of signers", error=CeremonyError
    )
    ceremony, sender = reader.raw(DIGEST_BYTES), reader.raw(KEY_BYTES)
    joined = reader.blob(SIGNERS_MAX * KEY_BYTES)
    if len(joined) % KEY_BYTES:
        raise CeremonyError("an order of signers is cut off")
    keys = cut(joined, KEY_BYTES)
    check_electors(keys)
    return Appointment(
        ceremony=ceremony, sender=sender, keys=keys, given_at=reader.integer(),
        signature=reader.raw(SIGNATURE_BYTES),
    )  # fmt: skip


def check_appointment(order: Appointment, electorate: Electorate) -> None:
    """Raise CeremonyError unless a signer of today gives this order for the epoch to come."""
    if order.ceremony != electorate.ceremony:
        raise CeremonyError("the order is for the signers of another epoch")
    if order.node not in electorate.ids:
        raise CeremonyError("the order is of a node that is no signer")
    if not verify(order.sender, order.signing_bytes(), order.signature):
        raise CeremonyError("the order is not signed by its sender")


def agreed(
    orders: Iterable[Appointment], electorate: Electorate, barred: Collection[bytes]
) -> tuple[bytes, ...]:
    """The group (public keys) that enough signers order; () for none. `orders` were checked, one of each signer; those
    of `barred` (node ids) do not count. The least key decides between two groups, where few signers are enough."""
    counts = Counter(each.keys for each in orders if each.node not in barred)
    needed = 1 if electorate.group is None else electorate.group.threshold
    return min((keys for keys, count in counts.items() if count >= needed), default=())
