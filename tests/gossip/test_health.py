from gossip.health import LocalHealth


def test_score_stays_within_its_bounds() -> None:
    health = LocalHealth(8)
    health.adjust(-1)
    assert health.score == 0
    health.adjust(100)
    assert health.score == 7


def test_doubt_stretches_durations() -> None:
    health = LocalHealth(8)
    assert health.stretch(0.5) == 0.5
    health.adjust(2)
    assert health.stretch(0.5) == 1.5
