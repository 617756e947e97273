import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.errors import ForgedError, MalformedError
from gossip.wire import WINDOW, KeyRing, Packet, ReplayWindow, overhead_bytes, parse, seal, unseal
from tests.gossip.world import identity_of

ALICE, BOB, EVE = identity_of("alice"), identity_of("bob"), identity_of("eve")


def sealed(*, introduction: bytes = b"", boot: int = 3, counter: int = 7, body: bytes = b"hello") -> bytes:
    cipher = KeyRing(ALICE, keys_max=4).sending(BOB.id, BOB.agreement_key, boot)
    return seal(
        cipher, version=1, sender=ALICE.id, boot=boot, counter=counter, introduction=introduction, body=body
    )


def opened(data: bytes) -> bytes:
    packet = parse(data, (1, 1))
    return unseal(
        KeyRing(BOB, keys_max=4).receiving(ALICE.id, ALICE.agreement_key, packet.boot, keep=True), packet
    )


@pytest.mark.parametrize("introduction", [b"", b"it is me"])
def test_sealed_datagrams_open_at_their_receiver(introduction: bytes) -> None:
    data = sealed(introduction=introduction)
    assert len(data) == len(b"hello") + overhead_bytes(introduction)
    packet = parse(data, (1, 1))
    assert (packet.sender, packet.boot, packet.counter) == (ALICE.id[:8], 3, 7)
    assert packet.introduction == introduction
    assert opened(data) == b"hello"


@given(st.integers(0, 62), st.integers(1, 255), st.sampled_from([b"", b"it is me"]))
def test_no_bit_can_be_changed(position: int, flip: int, introduction: bytes) -> None:
    data = bytearray(sealed(introduction=introduction))
    data[position % len(data)] ^= flip
    with pytest.raises((MalformedError, ForgedError)):
        opened(bytes(data))


def test_nobody_else_can_open_or_speak() -> None:
    packet = parse(sealed(), (1, 1))
    with pytest.raises(ForgedError):
        unseal(KeyRing(EVE, keys_max=4).receiving(ALICE.id, ALICE.agreement_key, 3, keep=True), packet)
    as_alice = KeyRing(EVE, keys_max=4).sending(BOB.id, BOB.agreement_key, 3)
    forged = seal(as_alice, version=1, sender=ALICE.id, boot=3, counter=8, introduction=b"", body=b"hello")
    with pytest.raises(ForgedError):
        opened(forged)


def test_each_direction_and_boot_has_its_own_key() -> None:
    packet = parse(sealed(boot=3), (1, 1))
    ring = KeyRing(BOB, keys_max=8)
    with pytest.raises(ForgedError):
        unseal(ring.sending(ALICE.id, ALICE.agreement_key, 3), packet)
    with pytest.raises(ForgedError):
        unseal(ring.receiving(ALICE.id, ALICE.agreement_key, 4, keep=True), packet)


def test_an_agreement_key_of_small_order_is_forged() -> None:
    with pytest.raises(ForgedError):
        KeyRing(BOB, keys_max=4).sending(ALICE.id, bytes(32), 1)


def test_the_key_ring_is_bounded_and_ignores_invented_boots() -> None:
    ring = KeyRing(BOB, keys_max=4)
    for boot in range(20):
        ring.receiving(ALICE.id, ALICE.agreement_key, boot, keep=True)
    assert len(ring) == 4
    kept = ring.receiving(ALICE.id, ALICE.agreement_key, 19, keep=True)
    for boot in range(100, 120):
        ring.receiving(ALICE.id, ALICE.agreement_key, boot, keep=False)
    assert ring.receiving(ALICE.id, ALICE.agreement_key, 19, keep=True) is kept


@given(st.binary(max_size=1500))
def test_any_bytes_parse_or_are_malformed(data: bytes) -> None:
    try:
        assert isinstance(parse(data, (1, 1)), Packet)
    except MalformedError:
        pass


def test_an_introduction_that_lies_about_its_length_is_malformed() -> None:
    data = bytearray(sealed(introduction=b"it is me"))
    for length in (0, 20, 65535):
        data[25:27] = length.to_bytes(2, "big")
        with pytest.raises(MalformedError):
            parse(bytes(data), (1, 1))


@given(st.lists(st.integers(0, 300), max_size=400))
def test_the_window_accepts_each_counter_once_and_none_older_than_64(counters: list[int]) -> None:
    window, seen = ReplayWindow(), set()
    for counter in counters:
        highest = max(seen, default=-1)
        assert window.fresh(counter) == (counter not in seen and counter > highest - WINDOW)
        if window.fresh(counter):
            window.accept(counter)
            seen.add(counter)
