"""One liar of each kind among honest participants: one outcome, the provable convicted, the others outlasted."""

import pytest

from tests.trust.ceremony.liars import CONVICTED, LIARS, Liar, silent_from
from tests.trust.ceremony.network import Network, check_outcome, found, founded, outcome, people, reshare
from trust.ceremony.events import Received
from trust.ceremony.evidence import judge
from trust.ceremony.machine import Ceremony
from trust.ceremony.statement import Kind, decode_statement
from trust.epoch import check_epoch

pytestmark = pytest.mark.timeout(120)


def honest_done(network: Network, lying: bytes) -> bool:
    return all(node.sealed for id_, node in network.nodes.items() if id_ != lying)


@pytest.mark.parametrize("kind", LIARS, ids=lambda kind: kind.__name__)
def test_four_honest_founders_of_five_finish_whatever_the_fifth_says(kind: type[Liar]) -> None:
    network, electorate, founders = found(5)
    lying = founders[
        (electorate.ids.index(electorate.leader(0)))
    ].id  # the first to lead: lies in openings too
    network.nodes[lying].kind = kind
    assert network.run(600, lambda: honest_done(network, lying))
    network.nodes[lying].sealed.clear()
    check_outcome(network, electorate)
    for id_, node in network.nodes.items():
        assert id_ == lying or {each.node for each in node.convicted} <= {lying}


@pytest.mark.parametrize("kind", CONVICTED, ids=lambda kind: kind.__name__)
def test_evidence_convinces_whoever_judges_it(kind: type[Liar]) -> None:
    network, electorate, _ = found(5)
    lying = electorate.leader(0)
    network.nodes[lying].kind = kind
    network.run(60, lambda: any(node.convicted for id_, node in network.nodes.items() if id_ != lying))
    evidence = [each for id_, node in network.nodes.items() if id_ != lying for each in node.convicted]
    assert evidence
    for each in evidence:
        said = decode_statement(each.evidence)
        assert said.genuine
        assert judge(said, electorate) == each.node == lying


@pytest.mark.parametrize(
    "kind", [each for each in CONVICTED if each.__name__ in {"BadProof", "BadShareToOne", "TwoDealings"}]
)
def test_two_of_three_founders_go_on_without_the_convicted_third(kind: type[Liar]) -> None:
    network, electorate, founders = found(3)
    lying = founders[1].id
    network.nodes[lying].kind = kind
    assert network.run(120, lambda: honest_done(network, lying))
    network.nodes[lying].sealed.clear()
    record = check_outcome(network, electorate)
    assert lying not in record.value.ids
    assert record.evidence  # why two votes of three were enough
    check_epoch(record, electorate)


@pytest.mark.parametrize("kind", LIARS[::3], ids=lambda kind: kind.__name__)
def test_a_new_signer_that_lies_does_not_stop_the_others(kind: type[Liar]) -> None:
    record, shares, old = founded(3)
    new = [*old, *people(2, 5)]
    lying = new[-1].id
    network, electorate = reshare(record, shares, old, new)
    network.nodes[lying].kind = kind
    electors = set(electorate.ids)
    assert network.run(900, lambda: all(network.nodes[id_].sealed for id_ in electors))
    network.nodes[lying].sealed.clear()
    after = check_outcome(network, electorate)
    assert after.group.public == record.group.public


@pytest.mark.parametrize("kind", LIARS[1::3], ids=lambda kind: kind.__name__)
def test_an_old_signer_that_lies_makes_no_second_outcome_in_a_strict_mesh(kind: type[Liar]) -> None:
    record, shares, old = founded(5, strict=True)
    network, electorate = reshare(record, shares, old, [*old[1:], *people(1, 5)])
    lying = old[2].id
    network.nodes[lying].kind = kind
    assert network.run(900, lambda: all(network.nodes[id_].sealed for id_ in electorate.ids if id_ != lying))
    network.nodes[lying].sealed.clear()
    assert check_outcome(network, electorate).group.public == record.group.public


def test_silence_of_a_founder_that_cannot_be_done_without_ends_when_it_speaks() -> None:
    network, electorate, founders = found(3)
    node = network.nodes[founders[0].id]
    node.kind = silent_from(Kind.SHARE)
    assert not network.run(100)
    assert not any(each.sealed for each in network.nodes.values())
    network._crash(node)
    node.kind = Ceremony
    assert network.run(600)
    check_outcome(network, electorate)


def test_statements_of_an_earlier_epoch_are_rejected() -> None:
    record, shares, old = founded(3)
    recorded: list[tuple[bytes, bytes, bytes]] = []
    first, _ = reshare(record, shares, old, old)

    def listen(source: bytes, target: bytes, data: bytes) -> bytes:
        recorded.append((source, target, data))
        return data

    first.alter = listen
    assert first.run(30)
    second, electorate = reshare(
        outcome(first),
        {id_: share for id_, node in first.nodes.items() if (share := node.sealed[0].share) is not None},
        old,
        old,
    )
    for source, target, data in recorded:
        second._at(0.0, target, Received(node=source, data=data))
    assert second.run(30)
    check_outcome(second, electorate)
    assert all(len(node.rejected) > 10 for node in second.nodes.values())
    assert all("another ceremony" in each.reason for node in second.nodes.values() for each in node.rejected)
