"""Who holds which pair, and what is not tried to find that out."""

import pytest

from peer.grants import EVERYBODY, NOTHING, Grant, Grants, agreed

DELEGATE, FRIEND, STRANGER = b"d" * 16, b"f" * 16, b"s" * 16


def grant(
    *subjects: bytes, namespaces: str = "shop", kinds: str = "HTTPRoute", delegate: bool = False
) -> Grant:
    return Grant(frozenset(subjects), frozenset(namespaces.split()), frozenset(kinds.split()), delegate)


def test_what_is_not_reached_from_the_governors_is_worth_nothing() -> None:
    grants = Grants(
        [grant(DELEGATE, delegate=True)],
        {DELEGATE: [grant(FRIEND)], STRANGER: [grant(STRANGER, namespaces="*")]},
    )
    assert grants.holders("shop", "HTTPRoute") == ({DELEGATE, FRIEND}, {DELEGATE})
    assert grants.holders("shop", "TrafficPolicy") == grants.holders("web", "HTTPRoute") == (set(), set())
    assert not grants.has_effect(STRANGER, grant(STRANGER, namespaces="*", kinds="*"))
    assert grants.has_effect(DELEGATE, grant(STRANGER, namespaces="*", kinds="*"))
    assert not grants.has_effect(DELEGATE, grant(STRANGER, kinds="TrafficPolicy"))


def test_of_too_many_pairs_none_is_tried_and_nothing_is_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed as if it granted something."""
    monkeypatch.setattr("peer.grants.PAIRS_TRIED_MAX", 4)
    grants = Grants([grant(DELEGATE, delegate=True)], {DELEGATE: []})
    few, many = grant(FRIEND, namespaces="a b c"), grant(FRIEND, namespaces="a b c d")
    assert not grants.has_effect(DELEGATE, few)
    tried: list[str] = []
    monkeypatch.setattr(Grants, "holders", lambda _self, *pair: tried.append(pair))
    assert grants.has_effect(DELEGATE, many)
    assert tried == []
    monkeypatch.undo()
    assert Grants([], {DELEGATE: [many]}).holders("a", "HTTPRoute") == (set(), set())


def test_what_several_agree_in() -> None:
    everybody = grant(EVERYBODY, namespaces="*", delegate=True)
    assert agreed([]) == NOTHING
    assert agreed([everybody, grant(FRIEND, DELEGATE)]) == grant(FRIEND, DELEGATE)
    assert agreed([grant(FRIEND, DELEGATE), grant(FRIEND, namespaces="web shop")]) == grant(FRIEND)
    assert agreed([grant(FRIEND), grant(DELEGATE, namespaces="web")]).subjects == frozenset()
