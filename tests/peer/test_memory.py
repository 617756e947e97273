"""What a peer believes of itself at its start: every case there is."""

import itertools
import math

import pytest

from peer.memory import FIRST_SYNC_S_MAX, Memory, recall


@pytest.mark.parametrize(
    ("what", "met", "entered", "damaged", "reachable", "blank", "alone", "hold_s"),
    [
        ("a founder's first start", False, False, False, False, False, True, 0.0),
        ("a founder with the others' addresses", False, False, False, True, False, False, FIRST_SYNC_S_MAX),
        ("a newcomer", True, False, False, True, True, False, math.inf),
        ("a restart", True, True, False, True, False, False, FIRST_SYNC_S_MAX),
        ("a restart with nobody left to ask", True, True, False, False, False, True, 0.0),
        ("its database was set aside", True, False, True, True, True, False, math.inf),
        ("and nobody is known", True, False, True, False, True, False, math.inf),
        ("the end of its log was lost", True, True, True, True, False, False, math.inf),
        (
            "a founder that lost its database, and with it whom it met",
            False,
            False,
            True,
            False,
            True,
            False,
            math.inf,
        ),
        ("a founder put back to before it met anybody", False, True, True, False, False, True, math.inf),
    ],
)
def test_what_follows_from_what_is_known(
    what: str,
    met: bool,
    entered: bool,
    damaged: bool,
    reachable: bool,
    blank: bool,
    alone: bool,
    hold_s: float,
) -> None:
    found = recall(met=met, entered=entered, damaged=damaged, reachable=reachable)
    assert found == Memory(entered=entered, blank=blank, alone=alone, hold_writes_s=hold_s), what


def test_where_everything_was_lost_an_operator_can_say_so() -> None:
    for met, entered, damaged, reachable in itertools.product((False, True), repeat=4):
        found = recall(met=met, entered=entered, damaged=damaged, reachable=reachable, accepted=True)
        assert not found.blank
        assert found.hold_writes_s <= FIRST_SYNC_S_MAX


def test_a_state_in_doubt_is_never_written_on_while_others_may_know_better() -> None:
    for met, entered, damaged, reachable in itertools.product((False, True), repeat=4):
        memory = recall(met=met, entered=entered, damaged=damaged, reachable=reachable)
        if damaged or (met and not entered):
            assert memory.hold_writes_s == math.inf
        assert not (memory.blank and memory.alone)
