"""Epoch records: what counts as decided, how they follow one another, and which of two is followed."""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trust.ceremony.network import founded, outcome, reshare, shares_of
from trust.ceremony.electorate import Electorate, founding, quorum
from trust.ceremony.statement import Kind, state
from trust.epoch import (
    RECORD_BYTES_MAX,
    Chain,
    EpochRecord,
    check_epoch,
    choose,
    decode_epoch,
    decode_value,
    succession,
    unproven,
    with_votes,
)
from trust.errors import CeremonyError, EpochError
from trust.frost import aggregate, new_nonces, sign_share, transcript
from trust.groupkey import GroupKey, KeyShare
from trust.identity import NodeIdentity


@cache
def history(length: int = 3) -> tuple[list[EpochRecord], list[NodeIdentity], dict[bytes, KeyShare]]:
    record, shares, signers = founded(3)
    records = [record]
    for _ in range(length - 1):
        network, _ = reshare(records[-1], shares, signers, signers)
        assert network.run(30)
        records.append(outcome(network))
        shares = shares_of(network)
    return records, signers, shares


def decided_by(
    electorate: Electorate, group: GroupKey, shares: list[KeyShare], voters: list[NodeIdentity]
) -> EpochRecord:
    """A record made by hand."""
    value = unproven(electorate, group, [each.public_key for each in history()[1]])
    nonces = [new_nonces(share, bytes) for share in shares]
    commitments = [each.commitment for each in nonces]
    message = value.signing_bytes()
    parts = {
        share.identifier: sign_share(share, nonce, message, commitments)
        for share, nonce in zip(shares, nonces, strict=True)
    }
    proof = aggregate(transcript(shares[0].group, message, commitments), parts)
    value = replace(value, proof=proof)
    votes = [state(each, electorate.ceremony, 3, Kind.CONFIRM, value.digest) for each in voters]
    return with_votes(value, 3, votes, ())


def test_records_come_back_as_they_were_encoded() -> None:
    for record in history()[0]:
        assert decode_epoch(record.encode()) == record
        assert decode_value(record.value.encode()) == record.value
        assert len(record.encode()) < 1024


@given(st.binary(max_size=300), st.integers(0, 600))
def test_arbitrary_bytes_are_no_record(data: bytes, at: int) -> None:
    good = history()[0][1].encode()
    for bad in (data, good[:at] + data + good[at:], good[:at]):
        if bad == good:
            continue
        try:
            record = decode_epoch(bad)
        except EpochError:
            continue
        with pytest.raises(EpochError):
            check_epoch(record, succession(history()[0][0]))


def test_a_record_that_is_too_long_is_refused() -> None:
    with pytest.raises(EpochError, match="at most"):
        decode_epoch(bytes(RECORD_BYTES_MAX + 1))


def test_a_chain_follows_the_epochs_and_refuses_what_does_not_follow() -> None:
    records, _, _ = history()
    chain = Chain(records[0].group.public)
    assert chain.latest is None
    with pytest.raises(EpochError, match="not known here"):
        chain.add(records[1])
    assert [chain.add(record) for record in records] == [True] * 3
    assert [chain.add(record) for record in records] == [False] * 3
    assert chain.latest == records[-1]
    assert len(chain) == 3


def test_a_chain_starts_at_the_pinned_root_only() -> None:
    records, _, _ = history()
    other, _, _ = founded(2, seed=9)
    chain = Chain(records[0].group.public)
    with pytest.raises(EpochError, match="not signed by the root"):
        chain.add(other)
    assert chain.latest is None


def test_votes_of_fewer_than_a_quorum_decide_nothing() -> None:
    records, _, _ = history()
    electorate = succession(records[0])
    one = replace(records[1], votes=records[1].votes[:1])
    with pytest.raises(EpochError, match="1 votes, 2 of 3 are needed"):
        check_epoch(one, electorate)
    twice = replace(records[1], votes=(records[1].votes[0], records[1].votes[0]))
    with pytest.raises(EpochError, match="1 votes"):
        check_epoch(twice, electorate)
    elsewhere = replace(records[1], attempt=records[1].attempt + 1)
    with pytest.raises(EpochError, match="0 votes"):
        check_epoch(elsewhere, electorate)


def test_votes_without_a_signature_of_the_group_decide_nothing() -> None:
    records, signers, _ = history()
    electorate = succession(records[0])
    value = replace(records[1].value, proof=bytes(64))
    votes = [state(each, electorate.ceremony, 0, Kind.CONFIRM, value.digest) for each in signers]
    with pytest.raises(EpochError, match="not proved"):
        check_epoch(with_votes(value, 0, votes, ()), electorate)


def test_another_root_never_follows() -> None:
    records, _, _ = history()
    other, shares, _ = founded(3, seed=9)
    electorate = succession(records[0])
    group = replace(other.group, epoch=1)
    with pytest.raises(EpochError, match="another root"):
        check_epoch(
            replace(records[1], value=replace(records[1].value, group=group)),
            electorate,
        )
    assert shares


def test_of_two_decided_records_everybody_follows_the_same() -> None:
    records, signers, shares = history()
    held = list(shares.values())
    electorate = succession(records[1])
    # Liars voted twice: the second record of epoch 2 is of a group with the same root.
    rival = decided_by(electorate, records[2].group, held, signers[:2])
    other_value = replace(rival.value, keys=rival.value.keys)
    assert other_value.digest != records[2].digest
    for order in ([records[2], rival], [rival, records[2]]):
        chain = Chain(records[0].group.public)
        for record in [*records[:2], *order]:
            chain.add(record)
        assert chain.latest == choose([records[2], rival])


def test_the_rule_of_decision_never_changes() -> None:
    records, _, _ = history()
    changed = replace(records[1], value=replace(records[1].value, strict=True))
    with pytest.raises(EpochError, match="never changes"):
        check_epoch(changed, succession(records[0]))


@given(st.integers(1, 16), st.data())
def test_two_quorums_share_more_electors_than_lie(count: int, data: st.DataObject) -> None:
    faults = data.draw(st.integers(0, count - 1))
    needed = quorum(count, faults)
    assert 2 * needed - count > faults
    assert 2 * (needed - 1) - count <= faults


@given(st.integers(1, 16), st.data())
def test_convicting_liars_keeps_quorums_apart_from_no_honest_elector(count: int, data: st.DataObject) -> None:
    keys = [NodeIdentity.from_seed(bytes([at]) * 32).public_key for at in range(count)]
    electorate = founding("cluster.local", keys)
    convicted = electorate.ids[: data.draw(st.integers(0, electorate.faults))]
    honest = [node for node in electorate.ids if node not in convicted]
    least = next(n for n in range(len(honest) + 1) if electorate.decided(honest[:n], convicted))
    assert 2 * least - len(honest) > electorate.faults - len(convicted)


def test_founders_are_counted_and_their_number_is_bounded() -> None:
    with pytest.raises(CeremonyError, match="0 signers"):
        founding("cluster.local", [])
    keys = [NodeIdentity.from_seed(bytes([at]) * 32).public_key for at in range(17)]
    with pytest.raises(CeremonyError, match="17 signers"):
        founding("cluster.local", keys)
    with pytest.raises(CeremonyError, match="threshold of 4"):
        founding("cluster.local", keys[:3], threshold=4)
    assert founding("a", keys[:3]).ceremony != founding("b", keys[:3]).ceremony
