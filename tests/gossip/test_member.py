import itertools

import pytest

from gossip.member import TRANSITIONS, Event, State

# The table written out a second time, the other way round: for each event, what becomes of each state.
EXPECTED = {
    Event.ANNOUNCED: {State.ALIVE: "alive", State.SUSPECT: "alive", State.DEAD: "alive", State.LEFT: "alive"},
    Event.SUSPECTED: {
        State.ALIVE: "suspect",
        State.SUSPECT: "suspect",
        State.DEAD: "dead",
        State.LEFT: "left",
    },
    Event.CONDEMNED: {State.ALIVE: "dead", State.SUSPECT: "dead", State.DEAD: "dead", State.LEFT: "left"},
    Event.DEPARTED: {State.ALIVE: "left", State.SUSPECT: "left", State.DEAD: "left", State.LEFT: "left"},
    Event.EXPIRED: {State.ALIVE: "dead", State.SUSPECT: "dead", State.DEAD: "dead", State.LEFT: "left"},
    Event.EVICTED: {State.ALIVE: "dead", State.SUSPECT: "dead", State.DEAD: "dead", State.LEFT: "dead"},
    Event.ACQUITTED: {
        State.ALIVE: "alive",
        State.SUSPECT: "alive",
        State.DEAD: "dead",
        State.LEFT: "left",
    },
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_state_and_event_has_one_outcome(state: State, event: Event) -> None:
    assert TRANSITIONS[state, event].value == EXPECTED[event][state]


def test_the_table_has_no_other_entries() -> None:
    assert set(TRANSITIONS) == set(itertools.product(State, Event))


def test_only_the_subject_brings_a_member_back() -> None:
    for (state, event), after in TRANSITIONS.items():
        if state in (State.DEAD, State.LEFT) and after in (State.ALIVE, State.SUSPECT):
            assert event is Event.ANNOUNCED
