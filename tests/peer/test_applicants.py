"""How many signatures one applicant gets in a minute, how many all get, and what is remembered of them."""

import pytest

import peer.applicants
from peer.applicants import ALL_PER_MINUTE, EACH_PER_MINUTE, SIGNED_MAX, Applicants

ONE, TWO = b"1" * 16, b"2" * 16


def ask(applicants: Applicants, node: bytes, count: int, now: float, first: int = 0) -> list[str]:
    return [
        applicants.refusal(node, node + number.to_bytes(4, "big"), now)
        for number in range(first, first + count)
    ]


def test_one_applicant_gets_so_many_a_minute_and_is_told_when_to_come_again() -> None:
    applicants = Applicants(each=6, together=100)
    assert ask(applicants, ONE, 6, 50.0) == [""] * 6
    (words,) = ask(applicants, ONE, 1, 50.0, 6)
    assert "more than 6 signatures a minute: try again in 10 s" in words
    assert ask(applicants, TWO, 1, 50.0) == [""], "others have their own"
    assert "again in 1 s" in ask(applicants, ONE, 1, 59.5, 6)[0]
    assert ask(applicants, ONE, 1, 60.5, 6) == [""]
    assert ask(applicants, ONE, 7, 1000.0, 10)[5:] != ["", ""], "more than a minute is not saved up"


def test_all_together_get_so_many_a_minute_and_who_is_refused_for_that_loses_nothing() -> None:
    applicants = Applicants(each=6, together=10)
    for node in (ONE, TWO):
        assert ask(applicants, node, 5, 50.0) == [""] * 5
    (words,) = ask(applicants, ONE, 1, 50.0, 9)
    assert (
        "all applicants together ask this signer for more than 10 signatures a minute: try again in 6 s"
        in words
    )
    assert ask(applicants, ONE, 1, 56.1, 9) == [""]


def test_one_request_counts_once_however_many_orders_are_made_of_it() -> None:
    applicants = Applicants(each=2, together=100)
    assert [applicants.refusal(ONE, b"request", 0.0) for _ in range(SIGNED_MAX)] == [""] * SIGNED_MAX
    assert "make another one" in applicants.refusal(ONE, b"request", 0.0)
    assert ask(applicants, ONE, 1, 0.0) == [""], "whoever repeats it takes nothing from the applicant"


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.applicants, "NODES_MAX", 3)
    monkeypatch.setattr(peer.applicants, "REQUESTS_MAX", 5)
    applicants = Applicants()
    for number in range(9):
        assert ask(applicants, bytes([number]) * 16, 1, 0.0) == [""]
    assert repr(applicants) == "Applicants(nodes=3, requests=5)"


def test_a_host_with_all_its_accounts_and_a_large_mesh_after_an_outage_get_through() -> None:
    applicants = Applicants()
    assert not any(ask(applicants, ONE, EACH_PER_MINUTE, 0.0))
    assert ALL_PER_MINUTE >= 10_000 / 2
