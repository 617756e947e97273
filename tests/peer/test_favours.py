"""How often a signer helps without a reason of its own."""

from peer.favours import FAVOURS_MAX, FAVOURS_S, Favours
from trust.epoch import EPOCHS_MAX

MINE, OTHERS = (b"m" * 32,), (b"o" * 32,)


def test_what_was_wished_for_here_is_no_favour_and_all_else_is() -> None:
    favours = Favours()
    for _ in range(2 * FAVOURS_MAX):
        favours.sealed(0.0, MINE, MINE)
    assert favours.wait_s(0.0) == 0.0
    for at in range(FAVOURS_MAX):
        assert favours.wait_s(float(at)) == 0.0
        favours.sealed(float(at), OTHERS, MINE if at % 2 else None)
    assert favours.wait_s(10.0) == FAVOURS_S - 10
    assert favours.wait_s(FAVOURS_S) == 0.0


def test_a_wish_is_a_reason_until_an_epoch_did_not_bring_it_about() -> None:
    favours = Favours()
    assert favours.needed(None)
    assert not favours.needed(MINE)
    favours.sealed(0.0, OTHERS, MINE)
    assert favours.needed(MINE)
    assert not favours.needed(OTHERS)
    favours.sealed(1.0, OTHERS, OTHERS)
    assert not favours.needed(MINE)


def test_favours_alone_do_not_use_up_a_chain_in_a_year() -> None:
    assert EPOCHS_MAX / FAVOURS_MAX * FAVOURS_S > 365 * 86_400
