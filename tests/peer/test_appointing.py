"""Who may move the root: not one signer with friends, not by wishes, not by an order of its own; t operators may."""

import pytest

from peer.appointing import AGAIN_S, Appointing
from peer.ceremonies import LOOK_S
from peer.post import ORDER, REFUSAL, WISH
from peer.refusals import LOGGED_MAX, WORDS_MAX
from tests.peer.council import Council, council
from tests.trust.ceremony.network import founded, people
from trust.ceremony.appointment import (
    APPOINTMENT_BYTES_MAX,
    agreed,
    appoint,
    check_appointment,
    decode_appointment,
)
from trust.ceremony.electorate import SIGNERS_MAX, by_id
from trust.codec import UNIX_S_MAX
from trust.epoch import succession
from trust.errors import CeremonyError
from trust.identity import NodeIdentity


def keys_of(identities: list[NodeIdentity]) -> tuple[bytes, ...]:
    return by_id(each.public_key for each in identities)


def epochs(hall: Council) -> set[int]:
    return {seat.custody.record.epoch for seat in hall.seats.values() if seat.custody.record is not None}


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("honest", [False, True])
async def test_one_signer_and_its_friends_do_not_take_the_root(tmp_path, count, honest, monkeypatch, caplog):
    hall, everyone = council(tmp_path, count, 5)
    evil, friends = hall.seats[everyone[0].id], everyone[count:]
    if not honest:
        monkeypatch.setattr(evil.ceremonies._wishes, "_bear", lambda *_: None)
    evil.ceremonies.ask(keys_of(friends))
    assert bool(evil.ceremonies.asked.lacks) == honest
    await hall.after(60)
    assert epochs(hall) == {0}
    words = set(evil.ceremonies.asked.refusals.values())
    assert {"left out, and it is a signer that is here" in each for each in words} == (
        set() if honest else {True}
    )
    assert honest == (not [each for each in caplog.records if each.message == "wish_refused"])


async def test_what_as_many_operators_order_as_have_the_root_is_done(tmp_path, caplog):
    hall, everyone = council(tmp_path, 5, 5)
    signers, friends = everyone[:5], everyone[5:]
    for each in signers[:2]:
        hall.seats[each.id].ceremonies.ask(keys_of(friends))
    await hall.after(30)
    assert epochs(hall) == {0}
    for each in everyone[:5]:
        asked = hall.seats[each.id].ceremonies.asked
        assert set(asked.orders) == {each.id for each in signers[:2]}, "all signers can tell who ordered"
        assert set(asked.orders.values()) == {keys_of(friends)}
    assert [each for each in caplog.records if each.message == "signers_ordered"]
    third = hall.seats[signers[2].id].ceremonies
    third.ask(keys_of(friends))
    assert third.asked.lacks == ""
    await hall.until(hall.at(1))
    record = third._custody.record
    assert record is not None
    assert record.value.keys == keys_of(friends)
    await hall.after(LOOK_S)
    assert third.asked.orders == {}


async def test_an_order_of_a_revoked_signer_does_not_count(tmp_path):
    hall, everyone = council(tmp_path, 3, 3)
    for seat in hall.seats.values():
        seat.opinion.barred = frozenset([everyone[0].id])
    group = keys_of(everyone[3:])
    for each in everyone[:2]:
        hall.seats[each.id].ceremonies.ask(group)
    await hall.after(20)
    assert epochs(hall) == {0}
    hall.seats[everyone[2].id].ceremonies.ask(group)
    await hall.until(hall.at(1, [each.id for each in everyone[1:]]))


async def test_an_order_that_is_lost_is_shown_again_and_a_later_one_replaces_it(tmp_path):
    hall, everyone = council(tmp_path, 3, 3)
    one, two = (hall.seats[each.id] for each in everyone[:2])
    hall.alter = lambda _source, _target, letter: None if letter[:1] == ORDER else letter
    one.ceremonies.ask(keys_of(everyone[2:5]))
    await hall.after(1)
    assert two.ceremonies.asked.orders == {}
    hall.alter = lambda _source, _target, letter: letter
    await hall.after(AGAIN_S + LOOK_S)
    assert set(two.ceremonies.asked.orders) == {everyone[0].id}
    one.ceremonies.ask(keys_of(everyone[3:]))
    await hall.after(AGAIN_S + LOOK_S)
    assert two.ceremonies.asked.orders == {everyone[0].id: keys_of(everyone[3:])}


async def test_letters_about_wishes_are_taken_from_signers_and_in_bounds(tmp_path, caplog):
    hall, everyone = council(tmp_path, 3, 1)
    seat, sender, outsider = hall.seats[everyone[0].id], everyone[1], everyone[3]
    record = seat.custody.record
    assert record is not None
    name = succession(record).ceremony
    told: list[bytes] = []
    hall.alter = lambda _source, _target, letter: told.append(letter) if letter[:1] == REFUSAL else letter
    order = appoint(outsider, name, keys_of(everyone[1:]), 1).encode()
    for letter in (
        order,
        b"",
        bytes(APPOINTMENT_BYTES_MAX + 1),
        appoint(sender, bytes(32), keys_of(everyone), 1).encode(),
    ):
        seat.ceremonies.receive(sender.id, ORDER + letter)
    await seat.ceremonies.turn()
    assert seat.ceremonies.asked.orders == {}
    assert len(told) == 4
    assert all(len(each) <= 1 + 32 + WORDS_MAX for each in told)
    for number in range(3 * LOGGED_MAX):
        stranger = NodeIdentity.from_seed(bytes([number]) * 32)
        seat.ceremonies.receive(sender.id, WISH + name + stranger.public_key)
    await seat.ceremonies.turn()
    assert len([each for each in caplog.records if each.message == "wish_refused"]) == LOGGED_MAX
    seat.ceremonies.receive(outsider.id, REFUSAL + name + b"no")
    seat.ceremonies.receive(sender.id, REFUSAL + bytes(32) + b"of yesterday")
    seat.ceremonies.receive(everyone[2].id, REFUSAL + name + b"\x1b[31m\xff" + b"n" * 1000)
    await seat.ceremonies.turn()
    (words,) = seat.ceremonies.asked.refusals.values()
    assert words.isprintable()
    assert len(words) == WORDS_MAX


# ---------------------------------------------------------------------- orders themselves


def test_an_order_is_of_a_signer_of_today_for_this_epoch_and_signed() -> None:
    record, _, old = founded(3)
    electorate = succession(record)
    order = appoint(old[0], electorate.ceremony, electorate.keys, 7)
    assert decode_appointment(order.encode()) == order
    check_appointment(order, electorate)
    for made, reason in (
        (appoint(old[0], bytes(32), electorate.keys, 7), "another epoch"),
        (appoint(people(1, 9)[0], electorate.ceremony, electorate.keys, 7), "no signer"),
        (decode_appointment(order.encode()[:-1] + bytes([order.encode()[-1] ^ 1])), "not signed"),
    ):
        with pytest.raises(CeremonyError, match=reason):
            check_appointment(made, electorate)


def test_the_largest_order_fits_and_one_signer_more_does_not() -> None:
    largest = keys_of(people(SIGNERS_MAX, 3))
    order = appoint(people(1)[0], bytes(32), largest, UNIX_S_MAX)
    assert decode_appointment(order.encode()) == order
    with pytest.raises(CeremonyError, match="17 signers"):
        appoint(people(1)[0], bytes(32), keys_of(people(SIGNERS_MAX + 1, 3)), 1)
    for cut in range(0, len(order.encode()), 7):
        with pytest.raises(CeremonyError):
            decode_appointment(order.encode()[:cut])


def test_orders_are_counted_by_signer_and_group() -> None:
    record, _, old = founded(5)
    electorate = succession(record)
    one, two = keys_of(old[:3]), keys_of(old[1:])
    orders = [appoint(each, electorate.ceremony, one if at < 3 else two, 1) for at, each in enumerate(old)]
    assert agreed(orders, electorate, ()) == one
    assert agreed(orders[1:], electorate, ()) == ()
    assert agreed(orders, electorate, [old[0].id]) == ()


def test_an_operator_that_orders_twice_in_a_second_is_believed_the_second_time() -> None:
    record, _, old = founded(3)
    mine, theirs = (Appointing(each, lambda: 5.0) for each in old[:2])
    shown = []
    for group in (keys_of(old), keys_of(old[:2])):
        mine.order(group, record)
        shown.append(mine.show(0.0 if not shown else AGAIN_S))
    for content in (shown[1], shown[0], shown[1]):
        assert content is not None
        theirs.hear(content, record)
    assert theirs.orders == {old[0].id: keys_of(old[:2])}
    assert mine.show(AGAIN_S) is None
