"""N peers settle on being the founders: the first step of a founding (`peer/founding.py`).

Each contacts the seeds and who it hears of, until N have settled on one another (`peer/meeting.py`). That is in
keys/founders before the ceremony begins, so that a peer started again founds with the same.

Invariant: founders that are settled stay these, over all starts.
"""

import logging
from typing import Final

from peer.founder import TELL_S, Founder, FoundingError
from peer.io.keys import KeyFile
from trust.bootstrap import decode_card
from trust.ceremony.statement import pack_many, unpack_many
from trust.errors import TrustError

log = logging.getLogger("gossamer.founding")

WAITING_TOLD_S: Final = 10.0
HOPELESS_S: Final = 10.0  # after which a peer whose secret nobody shares gives up


def warn(founder: Founder) -> None:
    """Tell the operator where no secret tells founders from strangers."""
    if founder.site.secret is None:
        log.warning("founders_unauthenticated", extra={"fields": {"expect": founder.site.expect}})
        founder.say(
            "warning: no bootstrap token is given: whoever reaches this port first can found the mesh. Compare the "
            "fingerprint below on all peers, or give all of them one token (gossamer token create --bootstrap)"
        )


def take_up(founder: Founder) -> None:
    """The founders that an earlier life settled on. Raises FoundingError."""
    packed = founder.keys.read(KeyFile.FOUNDERS)
    if packed is None:
        return
    try:
        cards = [decode_card(each) for each in unpack_many(packed)]
    except TrustError as error:
        raise FoundingError(f"{founder.keys.path(KeyFile.FOUNDERS)}: {error}") from error
    for card in cards:
        founder.meeting.met.setdefault(card.node, card)
    founder.meeting.settled = frozenset(card.node for card in cards)


async def settle(founder: Founder) -> None:
    """Until N founders have settled on who they are, or a running mesh has let this peer in. Raises FoundingError and
    KeyFileError."""
    taken_up = founder.meeting.settled is not None
    began = told_at = founder.clock()
    while founder.meeting.settled is None and founder.let_in is None:
        founder.read_letters()
        founder.others.propose()
        now = founder.clock()
        if now - told_at >= WAITING_TOLD_S:
            told_at = now
            founder.say(_waiting_words(founder))
        alone = len(founder.meeting.met) == 1
        if founder.hopeless or (founder.others.refused and alone and now - began >= HOPELESS_S):
            raise FoundingError(founder.hopeless or "; ".join(sorted(set(founder.others.refused.values()))))
        await founder.others.pause(TELL_S)
    if founder.meeting.settled is not None and not taken_up:
        cards = [founder.meeting.met[node] for node in sorted(founder.meeting.settled)]
        founder.keys.write(KeyFile.FOUNDERS, pack_many([card.encode() for card in cards]))
        founder.others.propose()


def doing(founder: Founder) -> str:
    """How far the founding is, in words."""
    if founder.member:
        return "waiting until the other founders are members"
    settled = founder.meeting.settled
    if settled is None or founder.meeting.without_me() is not None:
        return _waiting_words(founder)
    others = ", ".join(sorted(founder.name(node) for node in settled - {founder.identity.id}))
    return f"{'making the root key' if founder.custody is None else 'having its credential signed'} with {others}"


def _waiting_words(founder: Founder) -> str:
    met = ", ".join(sorted(card.name for card in founder.meeting.met.values()))
    reasons = "; ".join(sorted(set(founder.others.refused.values())))
    words = f"waiting for {founder.meeting.missing()} more of {founder.site.expect} founders; here: {met}"
    if founder.meeting.without_me() is not None:
        words = "others found the mesh without this peer; waiting for it, to be let in"
    return words + (f" ({reasons})" if reasons else "")
