import pytest

from gossip.errors import LimitError
from gossip.member import State
from gossip.presence import Presence
from tests.gossip.world import credential_of, identity_of
from trust.identity import verify


def presence_of() -> Presence:
    return Presence(
        identity=identity_of("a"),
        credential=credential_of("a"),
        address=("10.0.0.1", 1),
        boot=3,
        zone="z",
        meta={"k": 1},
        now=5.0,
    )


def test_starts_alive_at_incarnation_zero_of_its_boot() -> None:
    presence = presence_of()
    assert presence.rank == (3, 0)
    assert presence.member.state is State.ALIVE
    assert verify(presence.identity.public_key, presence.alive.signing_bytes(), presence.alive.signature)


def test_each_announcement_is_one_incarnation_up() -> None:
    presence = presence_of()
    presence.announce()
    presence.announce(meta={"k": 2})
    assert presence.rank == (3, 2)
    assert presence.member.meta == {"k": 2}
    assert presence.encoded == presence.alive.encode()
    assert presence.encoded_slim == presence.alive.slim().encode()


@pytest.mark.parametrize(
    ("above", "after"), [((3, 0), (3, 1)), ((3, 7), (3, 8)), ((2, 99), (3, 1)), ((5, 4), (6, 0))]
)
def test_rises_above_what_an_earlier_life_signed(above: tuple[int, int], after: tuple[int, int]) -> None:
    presence = presence_of()
    presence.announce(above=above)
    assert presence.rank == after


def test_leaving_outranks_the_last_alive_and_coming_back_outranks_leaving() -> None:
    presence = presence_of()
    left = presence.leave(9.0)
    assert left.rank == presence.rank == (3, 1)
    assert presence.member.state is State.LEFT
    presence.announce(meta={"k": 3})
    assert presence.rank == (3, 1)
    assert presence.member.state is State.LEFT
    presence.come_back(10.0)
    assert presence.rank == (3, 2)
    assert presence.member.state is State.ALIVE
    assert presence.alive.meta == (("k", 3),)


def test_what_does_not_fit_changes_nothing() -> None:
    presence = presence_of()
    before = (presence.rank, presence.encoded, presence.meta)
    with pytest.raises(LimitError):
        presence.announce(meta={"k": "v" * 1000})
    assert (presence.rank, presence.encoded, presence.meta) == before
