"""Whole ceremonies: all sizes, crashes everywhere, lossy networks, silence, and two wishes at once."""

import hashlib
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trust.ceremony.network import (
    TIMING,
    Faults,
    Network,
    Node,
    check_outcome,
    found,
    founded,
    outcome,
    people,
    reshare,
    shares_of,
)
from tests.trust.secret import interpolate
from trust.authority import SoleAuthority
from trust.ceremony.electorate import founding
from trust.ceremony.events import (
    Learned,
    Members,
    Output,
    Received,
    Rejected,
    Sealed,
    Send,
    Store,
    Tick,
    Wish,
)
from trust.ceremony.growth import SignerRules
from trust.ceremony.machine import Ceremony
from trust.ceremony.resharing import expected_constant, scalar_of_seed
from trust.ceremony.statement import FRAME_BYTES_MAX, Want, encode_frame
from trust.epoch import check_epoch, succession
from trust.errors import CeremonyError
from trust.frost import aggregate, new_nonces, sign_share, transcript
from trust.group import base_mul, point_sum
from trust.groupkey import KeyShare, identifier_of
from trust.identity import NodeIdentity, verify

pytestmark = pytest.mark.timeout(120)


def signs(shares: Iterable[KeyShare], message: bytes = b"a certificate") -> bool:
    """Whether these shares make a signature of the root."""
    held = list(shares)
    nonces = [new_nonces(share, bytes) for share in held]
    commitments = [each.commitment for each in nonces]
    parts = {
        share.identifier: sign_share(share, nonce, message, commitments)
        for share, nonce in zip(held, nonces, strict=True)
    }
    signature = aggregate(transcript(held[0].group, message, commitments), parts)
    return verify(held[0].group.public, message, signature)


# ---------------------------------------------------------------------- every size


sizes = st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n)))


@settings(max_examples=8)
@given(sizes, st.integers(0, 1000))
def test_founds_any_group_of_which_exactly_t_sign(size: tuple[int, int], seed: int) -> None:
    threshold, count = size
    rules = SignerRules(signers=count, threshold=threshold)
    network, electorate, _ = found(count, seed=seed, rules=rules)
    assert network.run(30)
    record = check_outcome(network, electorate)
    assert (record.epoch, record.group.threshold, len(record.value.keys)) == (0, threshold, count)
    shares = list(shares_of(network).values())
    assert signs(shares[-threshold:])
    few = {share.identifier: share.secret.expose() for share in shares[: threshold - 1]}
    assert not few or base_mul(interpolate(few)) != record.group.public


@settings(max_examples=8)
@given(sizes, sizes, st.data())
def test_reshares_from_any_group_to_any_other_with_any_overlap(
    old_size: tuple[int, int], new_size: tuple[int, int], data: st.DataObject
) -> None:
    (old_threshold, old_count), (threshold, count) = old_size, new_size
    record, shares, old = founded(old_count, rules=SignerRules(signers=old_count, threshold=old_threshold))
    staying = data.draw(st.integers(0, min(old_count, count)))
    new = [*old[:staying], *people(count - staying, 77)]
    rules = SignerRules(signers=count, threshold=threshold)
    network, electorate = reshare(record, shares, old, new, rules=rules)
    assert network.run(60)
    after = check_outcome(network, electorate)
    assert after.group.public == record.group.public
    assert (after.epoch, after.group.threshold) == (1, threshold)
    assert {*after.value.ids} == {each.id for each in new}
    assert signs(list(shares_of(network).values())[-threshold:])


def test_refresh_changes_every_share_and_gives_one_to_who_lost_its_own() -> None:
    record, shares, old = founded(3)
    lost = old[1].id
    remaining = {id_: share for id_, share in shares.items() if id_ != lost}
    network, electorate = reshare(record, remaining, old, old)
    assert network.run(30)
    check_outcome(network, electorate)
    fresh = shares_of(network)
    assert fresh.keys() == shares.keys()
    assert all(fresh[id_].secret.expose() != shares[id_].secret.expose() for id_ in shares)


def test_old_and_new_shares_do_not_mix() -> None:
    record, shares, old = founded(3)
    network, _ = reshare(record, shares, old, old)
    assert network.run(30)
    fresh = shares_of(network)
    mixed = {
        identifier_of(old[0].id): shares[old[0].id].secret.expose(),
        identifier_of(old[1].id): fresh[old[1].id].secret.expose(),
    }
    assert base_mul(interpolate(mixed)) != record.group.public


def test_epochs_follow_one_another() -> None:
    record, shares, signers = founded(1)
    for size in (3, 5, 3):
        new = signers[:size] + people(max(0, size - len(signers)), 100 + size)
        network, _ = reshare(record, shares, signers, new)
        assert network.run(30)
        before, record, shares, signers = record, outcome(network), shares_of(network), new
        check_epoch(record, succession(before))
    assert record.epoch == 3
    assert signs(list(shares.values())[:2])


def test_a_root_that_one_node_held_whole_becomes_epoch_zero() -> None:
    seed = bytes(range(32))
    (founder,) = people(1)
    authority = SoleAuthority.from_seed(seed, holder=founder.id)
    electorate = founding("cluster.local", [founder.public_key])
    network = Network()
    network.add(founder, electorate, secret=scalar_of_seed(hashlib.sha512(seed).digest()))
    assert network.run(1)
    assert check_outcome(network, electorate).group.public == authority.root_public


# ---------------------------------------------------------------------- crashes


@pytest.mark.parametrize("who", [0, 1])
def test_a_founder_may_crash_at_every_output(who: int) -> None:
    network, _, founders = found(3)
    assert network.run(30)
    outputs = network.nodes[founders[who].id].outputs
    for at in range(outputs):
        network, electorate, founders = found(3, seed=at)
        network.nodes[founders[who].id].crash_at = {at}
        assert network.run(120), f"not finished after a crash at output {at}"
        assert network.now < TIMING.attempt_s, "who lost its nonces says so at once"
        check_outcome(network, electorate)


@pytest.mark.parametrize("who", ["old", "new", "both"])
def test_a_participant_of_a_resharing_may_crash_at_every_output(who: str) -> None:
    record, shares, old = founded(2)
    new = [old[0], *people(2, 9)]
    crashing = {"old": old[1], "new": new[1], "both": old[0]}[who]
    network, _ = reshare(record, shares, old, new)
    assert network.run(30)
    for at in range(network.nodes[crashing.id].outputs):
        network, electorate = reshare(record, shares, old, new, seed=at)
        network.nodes[crashing.id].crash_at = {at}
        electors = set(electorate.ids)
        assert network.run(120, lambda net=network, ids=electors: all(net.nodes[id_].sealed for id_ in ids))
        after = check_outcome(network, electorate)
        assert after.group.public == record.group.public


def test_everybody_crashes_at_once_and_again() -> None:
    for at in range(0, 24, 5):
        network, electorate, _ = found(3, seed=at)
        for node in network.nodes.values():
            node.crash_at = {at, at + 11}
        assert network.run(300)
        check_outcome(network, electorate)


def test_stores_before_it_sends_what_it_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _, _ = found(3)
    seen: list[str] = []
    carry_out = network._carry_out

    def watched(node: Node, output: Output) -> None:
        seen.append(type(output).__name__)
        carry_out(node, output)

    monkeypatch.setattr(network, "_carry_out", watched)
    assert network.run(30)
    assert "Store" in seen
    node = next(iter(network.nodes.values()))
    machine = node.build(node)
    first = machine.step(0.0, Tick())
    assert isinstance(first[0], Sealed)  # what was decided is told again after a restart


def test_a_step_that_signs_puts_the_store_first() -> None:
    founders = people(3)
    electorate = founding("cluster.local", [each.public_key for each in founders])
    machine = Ceremony(
        identity=founders[0], electorate=electorate, rules=SignerRules(), entropy=bytes, timing=TIMING
    )
    outputs = machine.step(0.0, Tick())
    assert [type(each) for each in outputs] == [Store, Send, Send]


def test_a_broken_memory_is_refused_not_forgotten() -> None:
    network, electorate, founders = found(3)
    assert network.run(30)
    disk = network.nodes[founders[0].id].disk
    assert disk is not None
    for broken in (disk[:-1], b"", disk + b"\0", b"\x91\xa1a"):
        with pytest.raises(CeremonyError):
            Ceremony(
                identity=founders[0], electorate=electorate, rules=SignerRules(), entropy=bytes, memory=broken
            )


# ---------------------------------------------------------------------- the network


@pytest.mark.parametrize("seed", range(4))
def test_loss_repetition_and_disorder_cost_time_only(seed: int) -> None:
    network, electorate, _ = found(5, seed=seed, faults=Faults(loss=0.3, repeat=0.3, delay_s=0.5))
    assert network.run(300)
    assert check_outcome(network, electorate).group.threshold == 3


def test_a_partition_is_waited_out() -> None:
    half = {each.id for each in people(5)[:2]}

    def cut(a: bytes, b: bytes, now: float) -> bool:
        return 0.1 < now < 60 and (a in half) != (b in half)

    network, electorate, _ = found(5, faults=Faults(cut=cut))
    assert network.run(300)
    assert network.now > 60
    check_outcome(network, electorate)


def test_one_founder_of_five_that_never_comes_is_left_out() -> None:
    network, electorate, founders = found(5)
    network.kill(founders[2].id)
    assert network.run(60)
    record = check_outcome(network, electorate)
    assert (len(record.value.keys), record.group.threshold) == (4, 3)
    assert network.now < 10


def test_three_founders_wait_for_the_third_and_try_again_until_it_comes() -> None:
    network, electorate, founders = found(3)
    late = founders[0].id
    network.dead.add(late)
    assert not network.run(200)
    assert not any(node.sealed for node in network.nodes.values())
    network.dead.clear()
    network._at(network.now, late, None)
    assert network.run(300)
    assert len(check_outcome(network, electorate).value.keys) == 3


def test_two_dead_signers_of_five_are_replaced_by_the_three_others() -> None:
    record, shares, old = founded(5)
    new = [*old[2:], *people(2, 5)]
    network, electorate = reshare(record, shares, old, new, absent=[old[0].id, old[1].id])
    assert network.run(60)
    after = check_outcome(network, electorate)
    assert {*after.value.ids} == {each.id for each in new}


def test_fewer_than_the_threshold_change_nothing() -> None:
    record, shares, old = founded(5)
    gone = [each.id for each in old[:3]]
    network, _ = reshare(record, shares, old, [*old[3:], *people(3, 5)], absent=gone)
    assert not network.run(120)
    assert not any(node.sealed for node in network.nodes.values())


def test_a_new_signer_that_is_dead_is_left_out_after_an_attempt() -> None:
    record, shares, old = founded(3)
    new = [*old, *people(2, 5)]
    dead = new[-1].id
    network, electorate = reshare(record, shares, old, new, absent=[dead])
    assert network.run(120)
    after = check_outcome(network, electorate)
    assert {*after.value.ids} == {each.id for each in new} - {dead}


def test_two_wishes_for_one_epoch_lead_to_one_outcome() -> None:
    record, shares, old = founded(3)
    first, second = people(2, 5), people(2, 6)
    everyone = frozenset(each.id for each in [*old, *first, *second])
    for seed in range(6):
        network, electorate = reshare(record, shares, old, [*old, *first, *second], seed=seed)
        for at, each in enumerate(old):
            wish = Wish(keys=tuple(one.public_key for one in [*old, *(first if at % 2 else second)]))
            network.nodes[each.id].replay[:] = [Members(known=everyone), wish]
        half = {old[0].id}
        network.faults = Faults(
            cut=lambda a, b, now, half=half, end=20 * (seed % 3): now < end and (a in half) != (b in half)
        )
        assert network.run(200, lambda net=network: all(net.nodes[each.id].sealed for each in old))
        after = check_outcome(network, electorate)
        assert set(after.value.ids) <= everyone


# ---------------------------------------------------------------------- one machine


def machine(identity: NodeIdentity, others: list[NodeIdentity]) -> Ceremony:
    electorate = founding("cluster.local", [each.public_key for each in [identity, *others]])
    return Ceremony(
        identity=identity, electorate=electorate, rules=SignerRules(), entropy=bytes, timing=TIMING
    )


@given(st.binary(max_size=400))
def test_hostile_bytes_are_rejected_and_change_nothing(data: bytes) -> None:
    a, b, _ = people(3)
    one = machine(a, people(3)[1:])
    one.step(0.0, Tick())
    for frame in (data, one.ceremony + data, one.ceremony + b"s" + data):
        outputs = one.step(0.1, Received(node=b.id, data=frame))
        assert all(isinstance(each, Rejected | Send) for each in outputs)
        assert not any(isinstance(each, Store) for each in outputs)


def test_a_frame_that_is_too_long_is_rejected_unread() -> None:
    a, b, c = people(3)
    (output,) = machine(a, [b, c]).step(0.0, Received(node=b.id, data=bytes(FRAME_BYTES_MAX + 1)))[-1:]
    assert isinstance(output, Rejected | Send)
    outputs = machine(a, [b, c]).step(0.0, Received(node=b.id, data=bytes(FRAME_BYTES_MAX + 1)))
    assert any(isinstance(each, Rejected) and "at most" in each.reason for each in outputs)


def test_who_asks_often_is_answered_seldom() -> None:
    a, b, c = people(3)
    one = machine(a, [b, c])
    one.step(0.0, Tick())
    want = Received(node=b.id, data=encode_frame(one.ceremony, Want(attempt=0, kinds=0)))
    answers = [len(one.step(0.01 * at, want)) for at in range(1, 20)]
    assert answers[0] == 1
    assert sum(answers) == 1


def test_strangers_are_not_answered() -> None:
    a, b, c, stranger = people(4)
    one = machine(a, [b, c])
    one.step(0.0, Tick())
    want = Received(node=stranger.id, data=encode_frame(one.ceremony, Want(attempt=0, kinds=0)))
    assert one.step(0.1, want) == []


def test_who_learns_the_outcome_elsewhere_is_done() -> None:
    network, _, founders = found(3)
    assert network.run(30)
    record = outcome(network)
    one = machine(founders[0], founders[1:])
    outputs = one.step(0.0, Learned(record=record.encode()))
    assert [type(each) for each in outputs if not isinstance(each, Send)] == [Store, Sealed]
    assert one.deadline is None
    assert one.record == record


def test_nobody_reads_a_secret_in_what_is_printed() -> None:
    network, _, _ = found(3)
    assert network.run(30)
    for node in network.nodes.values():
        assert node.machine is not None
        sealed = node.sealed[0]
        assert sealed.share is not None
        secret = sealed.share.secret.expose()
        texts = [repr(node.machine), repr(sealed), repr(Store(data=secret)), repr(node.machine.status())]
        assert not any(secret.hex() in text or repr(secret)[2:-1] in text for text in texts)


def test_what_is_wiped_holds_no_share_any_more() -> None:
    network, _, founders = found(1)
    assert network.run(1)
    node = network.nodes[founders[0].id]
    assert node.machine is not None
    share = node.sealed[0].share
    assert share is not None
    secret = share.secret.expose()
    assert node.disk is not None
    assert secret in node.disk
    assert secret not in node.machine.wipe()


def test_all_constants_of_resharing_sum_to_the_root() -> None:
    record, _, old = founded(5)
    ids = [each.id for each in old]
    for dealers in itertools.combinations(ids, 3):
        constants = [expected_constant(record.group, dealers, node) for node in dealers]
        assert point_sum(constants) == record.group.public
    with pytest.raises(CeremonyError):
        expected_constant(record.group, ids[:2], ids[0])
    with pytest.raises(CeremonyError):
        expected_constant(record.group, [*ids[:2], bytes(15) + b"\1"], ids[0])
