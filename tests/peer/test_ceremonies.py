"""A peer's part in changes of the signers: from a wish to erased shares, with crashes, full disks and lost shares."""

import secrets

import pytest

from peer.ceremonies import PACE_S, RETRY_S
from peer.favours import FAVOURS_MAX, FAVOURS_S
from peer.io.keys import KeyFileError
from peer.mending import REPAIR_AFTER_S
from peer.post import FRAME, INBOX_EACH_BYTES_MAX, INBOX_EACH_MAX, INBOX_MAX, LETTER_BYTES_MAX, REPAIR, WISH
from peer.retiring import RETIRE_S
from peer.sitting import memory_path, remembered
from tests.peer.council import Council, Seat, council
from trust.ceremony.growth import SignerRules
from trust.ceremony.statement import Want, encode_frame
from trust.epoch import EpochRecord, succession
from trust.errors import CeremonyError
from trust.frost import aggregate, new_nonces, sign_share, transcript
from trust.groupkey import KeyShare
from trust.identity import NodeIdentity, node_id, verify

THREE = SignerRules(signers=3)


def wanted(identities: list[NodeIdentity]) -> tuple[bytes, ...]:
    return tuple(sorted((each.public_key for each in identities), key=node_id))


def wish_all(hall: Council, identities: list[NodeIdentity]) -> None:
    """All of them see that these should sign, and that the others are gone."""
    for seat in hall.seats.values():
        seat.opinion.gone = frozenset(hall.seats) - {each.id for each in identities}
        seat.opinion.wanted = wanted(identities)
        seat.ceremonies.changed()


def signs(shares: list[KeyShare], record: EpochRecord) -> bool:
    nonces = [new_nonces(share, secrets.token_bytes) for share in shares]
    commitments = [each.commitment for each in nonces]
    parts = {
        share.identifier: sign_share(share, nonce, b"a certificate", commitments)
        for share, nonce in zip(shares, nonces, strict=True)
    }
    signature = aggregate(transcript(record.group, b"a certificate", commitments), parts)
    return verify(record.group.public, b"a certificate", signature)


def check(hall: Council, epoch: int, signers: list[NodeIdentity]) -> None:
    """All peers that run follow one record, and its signers sign."""
    records = {
        seat.custody.record.digest: seat.custody.record
        for node, seat in hall.seats.items()
        if node not in hall.down and seat.custody.record is not None
    }
    (record,) = records.values()
    assert record.epoch == epoch
    assert set(record.value.keys) == {each.public_key for each in signers}
    held = [hall.seats[each.id].custody.shares[-1] for each in signers if each.id not in hall.down]
    assert all(share.group == record.group for share in held)
    assert signs(held[-record.group.threshold :], record)


# ---------------------------------------------------------------------- growth


async def test_one_becomes_three_becomes_five_and_old_shares_are_erased(tmp_path):
    hall, everyone = council(tmp_path, 1, 4)
    founder = hall.seats[everyone[0].id]
    old = founder.custody.shares[0]
    wish_all(hall, everyone[:3])
    await hall.until(hall.at(1, [each.id for each in everyone[:3]]))
    assert [share.group.epoch for share in founder.custody.shares] == [0, 1], "others may not have heard yet"
    for seat in hall.seats.values():
        seat.custody.learn(founder.custody.record)
    wish_all(hall, everyone)
    await hall.until(hall.at(2))
    check(hall, 2, everyone)
    await hall.after(RETIRE_S + 2)
    assert old.secret.wiped
    for seat in hall.seats.values():
        assert [share.group.epoch for share in seat.custody.shares] == [2]
        assert [path.name for path in seat.keys.directory.glob("share-*")] == ["share-0000000002.key"]
        assert remembered(seat.keys) == [], "the memory of a ceremony goes with its end"


async def test_a_wish_of_one_signer_is_made_the_wish_of_the_others(tmp_path):
    hall, everyone = council(tmp_path, 3, 2)
    asked = hall.seats[everyone[0].id].ceremonies.ask(wanted(everyone))
    assert asked == wanted(everyone)
    start = hall.now
    await hall.until(hall.at(1))
    check(hall, 1, everyone)
    assert hall.now - start < 2, "no leader waits for its time to be over"


async def test_asking_for_nothing_in_particular_gives_the_same_signers_fresh_shares(tmp_path):
    hall, everyone = council(tmp_path, 3)
    before = {node: seat.custody.shares[-1].secret.expose() for node, seat in hall.seats.items()}
    hall.seats[everyone[1].id].ceremonies.ask(None)
    await hall.until(hall.at(1))
    check(hall, 1, everyone)
    assert all(seat.custody.shares[-1].secret.expose() != before[node] for node, seat in hall.seats.items())


async def test_one_signer_alone_cannot_hurry_the_others_from_epoch_to_epoch(tmp_path):
    hall, everyone = council(tmp_path, 3)
    one = hall.seats[everyone[0].id].ceremonies
    one.ask(None)
    await hall.until(hall.at(1))
    begun = hall.now
    one.ask(None)
    await hall.until(hall.at(2))
    assert PACE_S - 1 < hall.now - begun < 2 * PACE_S
    begun = hall.now
    for seat in hall.seats.values():
        seat.ceremonies.ask(None)
    await hall.until(hall.at(3))
    assert hall.now - begun < 2, "what all of them wish for needs no pause"


async def test_one_signer_alone_cannot_use_up_the_epochs(tmp_path):
    """Whoever has no reason for them helps with so many; then it takes a reason, orders, or hours."""
    hall, everyone = council(tmp_path, 3, 2)
    one = hall.seats[everyone[0].id].ceremonies
    three = [each.id for each in everyone[:3]]
    for epoch in range(1, FAVOURS_MAX + 1):
        one.ask(None)
        await hall.until(hall.at(epoch, three))
    one.ask(None)
    await hall.after(3 * PACE_S)
    assert {hall.seats[node].custody.record.epoch for node in three} == {FAVOURS_MAX}
    words = set(one.asked.refusals.values())
    assert words == {"it has no reason itself, and follows others again in 5 hours"}
    hall.seats[everyone[1].id].ceremonies.ask(None)
    await hall.until(hall.at(FAVOURS_MAX + 1, three))
    signers = {hall.seats[node].custody.record.value.ids for node in three}
    assert signers == {tuple(three)}, (
        "as many as have the root can do it: the third follows, and keeps its seat"
    )
    for seat in hall.seats.values():
        for record in one._custody.chain.records:
            seat.custody.learn(record)
    wish_all(hall, everyone)  # all of them see a reason
    await hall.until(hall.at(FAVOURS_MAX + 2))
    check(hall, FAVOURS_MAX + 2, everyone)
    for seat in hall.seats.values():
        seat.opinion.wanted = None
    one.ask(None)
    await hall.after(3 * PACE_S)
    assert not hall.at(FAVOURS_MAX + 3)()
    hall.now += FAVOURS_S
    one.ask(None)
    await hall.until(hall.at(FAVOURS_MAX + 3))


async def test_what_is_asked_for_right_after_a_change_is_not_forgotten(tmp_path):
    hall, everyone = council(tmp_path, 3)
    for epoch in range(1, 4):
        hall.seats[everyone[0].id].ceremonies.ask(None)
        await hall.until(hall.at(epoch))


async def test_what_cannot_be_wished_for_is_refused_with_the_reason(tmp_path):
    hall, everyone = council(tmp_path, 3, 2)
    signer, outsider = hall.seats[everyone[0].id], hall.seats[everyone[3].id]
    with pytest.raises(CeremonyError, match="no signer"):
        outsider.ceremonies.ask(None)
    stranger = NodeIdentity.from_seed(bytes(32))
    with pytest.raises(CeremonyError, match="no member that can be a signer"):
        signer.ceremonies.ask((stranger.public_key, *wanted(everyone)))
    signer.opinion.barred = frozenset([everyone[3].id])
    with pytest.raises(CeremonyError, match="is revoked"):
        signer.ceremonies.ask(wanted(everyone))
    many = [NodeIdentity.from_seed(bytes([number]) * 32) for number in range(1, 4)]
    signer.opinion.barred = frozenset()
    signer.opinion.known |= {each.id for each in many}
    with pytest.raises(CeremonyError, match=r"8 signers are more than ca\.signers says \(5\)"):
        signer.ceremonies.ask(wanted([*everyone, *many]))
    with pytest.raises(CeremonyError, match="lower the threshold from 2 to 1"):
        signer.ceremonies.ask(wanted(everyone[:1]))


async def test_a_signer_does_not_take_over_a_wish_for_strangers(tmp_path):
    hall, everyone = council(tmp_path, 3)
    one, two = everyone[0], hall.seats[everyone[1].id]
    record = two.custody.record
    name = succession(record).ceremony
    for keys in (NodeIdentity.from_seed(bytes(32)).public_key, b"\0" * 31, b"", bytes(32) * 17):
        two.ceremonies.receive(one.id, WISH + name + keys)
    two.ceremonies.receive(one.id, WISH + bytes(32) + b"".join(wanted(everyone)))
    two.ceremonies.receive(bytes(16), WISH + name + b"".join(wanted(everyone)))
    await two.ceremonies.turn()
    assert two.ceremonies.status is None
    assert two.ceremonies.traffic.rejected == 2


async def test_a_dead_signer_is_replaced_and_a_revoked_one_too(tmp_path):
    hall, everyone = council(tmp_path, 3, 2)
    dead = everyone[0]
    hall.crash(dead.id)
    wish_all(hall, everyone[1:4])
    await hall.until(hall.at(1, [each.id for each in everyone[1:4]]))
    hall.seats[everyone[4].id].custody.learn(hall.seats[everyone[1].id].custody.record)
    check(hall, 1, everyone[1:4])
    revoked = everyone[1]
    for seat in hall.seats.values():
        seat.opinion.barred = frozenset([revoked.id])
    wish_all(hall, everyone[2:5])
    await hall.until(hall.at(2, [each.id for each in everyone[2:5]]))
    check_nodes = [each.id for each in everyone[2:5]]
    assert {hall.seats[node].custody.record.epoch for node in check_nodes} == {2}


async def test_who_is_no_signer_any_more_erases_its_share(tmp_path):
    hall, everyone = council(tmp_path, 3, 1)
    out = hall.seats[everyone[0].id]
    share = out.custody.shares[0]
    wish_all(hall, everyone[1:])
    await hall.until(hall.at(1))
    assert out.custody.shares == (share,), "others may not have heard yet"
    await hall.after(RETIRE_S + 5)
    assert out.custody.shares == ()
    assert share.secret.wiped
    assert list(out.keys.directory.glob("share-*")) == []


async def test_who_still_sits_when_all_is_over_is_told_the_outcome(tmp_path):
    hall, everyone = council(tmp_path, 3)
    late = everyone[2].id
    hall.alter = lambda source, target, letter: None if late in (source, target) and hall.cut else letter
    hall.cut = False
    wish_all(hall, everyone)
    for seat in hall.seats.values():
        seat.opinion.wanted = None
    hall.seats[everyone[0].id].ceremonies.ask(wanted(everyone))
    while not any(seat.custody.record.epoch for seat in hall.seats.values()):
        await hall.turn()
    hall.cut = True  # the last words do not reach it
    hall.letters.clear()
    await hall.until(hall.at(1, [everyone[0].id, everyone[1].id]))
    hall.crash(everyone[0].id)
    hall.seat(everyone[0])  # it remembers the epoch, not the ceremony
    hall.cut = False
    await hall.until(hall.at(1))
    check(hall, 1, everyone)


# ---------------------------------------------------------------------- crashes


def crash_after(hall: Council, node: bytes, letters: int) -> None:
    """`node` crashes before it sends one letter more than so many."""
    sent = 0

    def count(source: bytes, _target: bytes, letter: bytes) -> bytes | None:
        nonlocal sent
        if source == node:
            sent += 1
            if sent > letters:
                hall.crash(node)
        return None if source in hall.down else letter

    hall.alter = count


@pytest.mark.parametrize("who", [0, 3])
async def test_a_crash_after_any_letter_costs_time_only(tmp_path, who):
    """Of a signer that deals, and of one that is to become a signer."""
    for after in range(1, 40, 7):
        hall, everyone = council(tmp_path / str(after), 2, 2)
        crashing = everyone[who]
        crash_after(hall, crashing.id, after)
        wish_all(hall, everyone)
        start = hall.now
        while crashing.id not in hall.down and not hall.at(1)():
            await hall.turn()
        if crashing.id in hall.down:
            await hall.after(1.0)
            hall.alter = lambda _source, _target, letter: letter
            hall.seat(crashing)
        await hall.until(hall.at(1))
        record = hall.seats[everyone[1].id].custody.record
        holders = [seat for node, seat in hall.seats.items() if node in record.value.ids]
        held = [seat.custody.shares[-1] for seat in holders if not seat.custody.lacking]
        assert signs(held[: record.group.threshold], record), f"after {after} letters"
        assert hall.now - start < 60


async def test_the_share_is_on_disk_before_the_memory_goes(tmp_path, monkeypatch):
    hall, everyone = council(tmp_path, 1)
    seat = hall.seats[everyone[0].id]
    held: list[bool] = []

    def crash(path: object) -> None:
        held.append((seat.keys.directory / "share-0000000001.key").exists())
        raise KeyFileError("crashed")

    with monkeypatch.context() as patch:
        patch.setattr("peer.sitting.erase_private", crash)
        seat.ceremonies.ask(None)
        await hall.turn()
    assert held == [True]
    assert remembered(seat.keys) == [1]
    hall.crash(everyone[0].id)
    again = hall.seat(everyone[0])
    await hall.turn()
    check(hall, 1, everyone)
    assert remembered(again.keys) == []


async def test_a_crash_between_erasing_a_memory_and_removing_it_is_finished(tmp_path, caplog):
    hall, everyone = council(tmp_path, 1, 2, THREE)
    wish_all(hall, everyone)
    await hall.until(hall.at(1))
    newcomer = everyone[1]
    await hall.after(RETIRE_S + 1)
    hall.crash(newcomer.id)
    path = memory_path(hall.seats[newcomer.id].keys, 1)
    path.write_bytes(bytes(1000))
    path.chmod(0o600)
    again = hall.seat(newcomer)
    await hall.turn()
    assert remembered(again.keys) == []
    assert "ceremony_memory_lost" not in caplog.text
    memory = memory_path(again.keys, 2)
    memory.write_bytes(bytes(1000))  # not decided, so that it may have been anything
    memory.chmod(0o600)
    hall.crash(newcomer.id)
    again = hall.seat(newcomer)
    await hall.turn()
    assert remembered(again.keys) == [2]
    assert "ceremony_memory_lost" in caplog.text


async def test_a_full_disk_keeps_everything_back_and_is_got_over(tmp_path, monkeypatch):
    hall, everyone = council(tmp_path, 3)
    full = hall.seats[everyone[0].id]
    real = memory_path(full.keys, 1)
    from peer import sitting

    write = sitting.replace_secret

    def fails(path: object, data: bytes) -> None:
        if path == real:
            raise KeyFileError("No space left on device")
        write(path, data)

    posted: list[bytes] = []
    hall.alter = lambda source, _target, letter: (
        (posted.append(letter) if source == everyone[0].id and letter[:1] == FRAME else None) or letter
    )
    with monkeypatch.context() as patch:
        patch.setattr("peer.sitting.replace_secret", fails)
        wish_all(hall, everyone)
        for seat in hall.seats.values():
            seat.opinion.wanted = None
        hall.seats[everyone[1].id].ceremonies.ask(None)
        await hall.after(RETRY_S - 1)
        said = [letter for letter in posted if letter[33:34] == b"s"]
        assert said == [], "nothing was said that is not on disk"
    await hall.until(hall.at(1))
    check(hall, 1, everyone)


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
async def test_who_cannot_read_its_memory_takes_no_part_in_that_epoch(tmp_path, damage, caplog):
    hall, everyone = council(tmp_path, 3)
    victim = everyone[0]
    hall.crash(victim.id)
    path = memory_path(hall.seats[victim.id].keys, 1)
    if damage is None:
        other, _ = council(tmp_path / "other", 1)
        foreign = next(iter(other.seats.values()))
        foreign.ceremonies.ask(None)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("peer.sitting.Sitting.forget", lambda _self: None)
            await other.turn()
        damage = memory_path(foreign.keys, 1).read_bytes()
    path.write_bytes(damage)
    path.chmod(0o600)
    seat = hall.seat(victim)
    hall.seats[everyone[1].id].ceremonies.ask(None)
    spoke: list[bytes] = []
    hall.alter = lambda source, _target, letter: (
        (spoke.append(letter) if source == victim.id and letter[33:34] == b"s" else None) or letter
    )
    await hall.until(hall.at(1, [everyone[1].id, everyone[2].id]), within_s=300)
    assert spoke == []
    assert "ceremony_memory_lost" in caplog.text
    seat.custody.learn(hall.seats[everyone[1].id].custody.record)
    hall.seats[everyone[1].id].ceremonies.ask(wanted(everyone))
    await hall.until(hall.at(2), within_s=300)
    check(hall, 2, everyone)


async def test_who_was_away_when_it_was_decided_finds_its_share_in_its_memory(tmp_path):
    hall, everyone = council(tmp_path, 5, rules=SignerRules(signers=5))
    away = everyone[4]
    proved: list[int] = []

    def cut(source: bytes, target: bytes, letter: bytes) -> bytes | None:
        if source == away.id and letter[:1] == FRAME:
            proved.append(1)
        return None if hall.deaf and away.id in (source, target) else letter

    hall.deaf = False
    hall.alter = cut
    wish_all(hall, everyone)
    for seat in hall.seats.values():
        seat.opinion.wanted = None
    hall.seats[everyone[0].id].ceremonies.ask(None)
    seat = hall.seats[away.id]
    while seat.ceremonies.status is None or seat.ceremonies.status.stage != "voting":
        await hall.turn()
    hall.deaf = True
    hall.letters = [each for each in hall.letters if each[1] != away.id]
    hall.crash(away.id)
    others = [each.id for each in everyone[:4]]
    await hall.until(hall.at(1, others))
    again = hall.seat(away)
    again.custody.learn(hall.seats[others[0]].custody.record)
    await hall.turn()
    assert not again.custody.lacking
    check(hall, 1, everyone)


# ---------------------------------------------------------------------- a lost share


def lose(hall: Council, identity: NodeIdentity) -> Seat:
    hall.crash(identity.id)
    for path in hall.seats[identity.id].keys.directory.glob("share-*"):
        path.unlink()
    return hall.seat(identity)


async def test_a_lost_share_is_restored_by_the_other_signers(tmp_path):
    hall, everyone = council(tmp_path, 3)
    before = hall.seats[everyone[0].id].custody.shares[-1].secret.expose()
    seat = lose(hall, everyone[0])
    assert seat.custody.lacking
    await hall.until(lambda: not seat.custody.lacking)
    assert seat.custody.shares[-1].secret.expose() == before
    assert seat.custody.record.epoch == 0, "the group stays as it is"
    assert hall.seats[everyone[1].id].ceremonies.status is None


async def test_a_restored_share_that_finds_no_place_on_the_disk_is_restored_again(tmp_path, monkeypatch):
    hall, everyone = council(tmp_path, 3)
    seat = lose(hall, everyone[0])

    def full(path: object, data: bytes) -> None:
        raise KeyFileError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("peer.custody.write_private", full)
        await hall.after(2 * REPAIR_AFTER_S)
        assert seat.custody.lacking
        assert seat.ceremonies._next() > hall.now, "it waits, and does not spin"
    await hall.until(lambda: not seat.custody.lacking, 30)


async def test_who_has_its_share_back_helps_others(tmp_path):
    hall, everyone = council(tmp_path, 3)
    first = lose(hall, everyone[0])
    await hall.until(lambda: not first.custody.lacking)
    second = lose(hall, everyone[1])
    await hall.until(lambda: not second.custody.lacking)


async def test_repairs_are_for_signers(tmp_path):
    hall, everyone = council(tmp_path, 3, 1)
    signer, outsider = hall.seats[everyone[0].id], everyone[3]
    signer.ceremonies.receive(outsider.id, REPAIR + bytes(64))
    hall.seats[outsider.id].ceremonies.receive(everyone[0].id, REPAIR + bytes(64))
    await hall.turn()
    assert not hall.letters


# ---------------------------------------------------------------------- bounds


async def test_the_inbox_is_bounded_for_each_and_for_all(tmp_path):
    hall, everyone = council(tmp_path, 1)
    ceremonies = hall.seats[everyone[0].id].ceremonies
    for _ in range(INBOX_EACH_MAX + 3):
        ceremonies.receive(b"a" * 16, b"x")
    assert ceremonies.traffic.dropped == 3
    for number in range(INBOX_MAX):
        ceremonies.receive(number.to_bytes(16, "big"), b"x")
    assert ceremonies.traffic.dropped == 3 + INBOX_EACH_MAX
    await hall.turn()
    assert ceremonies.traffic.received == INBOX_MAX
    ceremonies.receive(b"a" * 16, bytes(LETTER_BYTES_MAX + 1))
    assert ceremonies.traffic.dropped == 4 + INBOX_EACH_MAX


async def test_letters_which_may_be_shares_are_not_printed(tmp_path):
    hall, everyone = council(tmp_path, 3)
    ceremonies = hall.seats[everyone[0].id].ceremonies
    ceremonies.receive(everyone[1].id, FRAME + b"a share of the root")
    assert "of the root" not in repr(ceremonies)
    assert "inbox=1" in repr(ceremonies)


async def test_one_member_s_letters_are_bounded_in_bytes(tmp_path):
    hall, everyone = council(tmp_path, 1)
    ceremonies = hall.seats[everyone[0].id].ceremonies
    fitting = INBOX_EACH_BYTES_MAX // LETTER_BYTES_MAX
    for _ in range(2):  # what was read makes room
        dropped = ceremonies.traffic.dropped
        for _ in range(fitting + 1):
            ceremonies.receive(b"a" * 16, bytes(LETTER_BYTES_MAX))
        assert ceremonies.traffic.dropped == dropped + 1
        ceremonies.receive(b"b" * 16, bytes(LETTER_BYTES_MAX))
        assert ceremonies.traffic.dropped == dropped + 1
        await hall.turn()


async def test_outcomes_are_told_seldom_and_to_those_concerned(tmp_path):
    hall, everyone = council(tmp_path, 3, 1)
    name = succession(hall.seats[everyone[0].id].custody.record).ceremony
    hall.seats[everyone[0].id].ceremonies.ask(None)
    signers = [each.id for each in everyone[:3]]
    await hall.until(hall.at(1, signers))
    await hall.after(1.0)
    one = hall.seats[everyone[0].id].ceremonies
    want = FRAME + encode_frame(name, Want(attempt=0, kinds=0))
    for _ in range(5):
        one.receive(everyone[1].id, want)
    one.receive(everyone[3].id, want)
    await one.turn()
    assert [target for _, target, _ in hall.letters] == [everyone[1].id]
