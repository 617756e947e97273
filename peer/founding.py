"""N peers that are started together make a mesh: its root by distributed key generation, then by the root's own new
signers its certificate and their credentials. Nobody ever holds the key.

    meet       each contacts the seeds, both ends prove themselves (`peer/acquaintance.py`), until N founders have
               settled on who they are (`peer/settling.py`); from then on that is in keys/founders
    ceremony   the founding ceremony (`trust/ceremony`), its memory on disk like that of any other
    sign       the new group signs the root's certificate once, for the first of its signers that asks, and each
               founder's credential for the founder itself; credential and certificate make it a member
    part       who is a member stays until all are, or enough to admit the others, and then starts as any member does
               (this and signing: `peer/founded.py`)

A peer that is started again at any point goes on: settled founders, the memory of the ceremony, its share, and its
credential are each durable before anything follows from them. One that comes when the mesh runs already (a founder that
was away, or one more than N) asks a member of it to be let in: founders are, whoever proves the bootstrap secret is,
and anybody else is told to join with a token (`peer/readmission.py`).

What a founder knows from step to step is `peer/founder.py`.

On the stream, after both have proved themselves, the caller says what it is for: `letters` (settling, the ceremony),
`sign` (`peer/cosigner.py`), or `token` to a member of a running mesh. Letters:

    b"k" <cards>             peers that the sender has met: whom to contact
    b"p" <settled> <nodes>   whom the sender proposes
    b"c" <frame>             of the ceremony
    b"d" <certificate>       the root's
    b"m"                     the sender is a member

Invariant: a peer takes part in the founding of one root and no other, and believes nothing of who proved nothing.
"""

import asyncio
import logging
from functools import partial
from typing import assert_never

from peer import founders
from peer.custody import Custody
from peer.founded import own_membership, part, sign
from peer.founder import TELL_S, Founded, Founder, FoundingError, LetIn
from peer.io.listen import StreamServer
from peer.io.stream import ALPN, FOUND, Hello
from peer.settling import doing, settle, take_up, warn
from peer.sitting import Sitting
from trust.ceremony.electorate import Electorate, founding
from trust.ceremony.events import Convicted, Learned, Refused, Rejected, Retrying, Sealed, Send, Tick
from trust.epoch import EpochRecord
from trust.errors import TrustError
from trust.identity import format_id
from trust.tls import server_context_unverified

log = logging.getLogger("gossamer.founding")


async def found_together(founder: Founder) -> Founded | LetIn:
    """Until this peer is a member, or has a token to become one. Raises FoundingError, KeyFileError."""
    server = StreamServer(
        server_context_unverified(founder.certificate, alpn=(ALPN,)), _no_mesh_yet, lambda _stream: None
    )
    server.handle(FOUND, founder.others.serve)
    try:
        await server.start(founder.site.bind, founder.site.address[1])
    except OSError as error:
        where = f"{founder.site.bind}:{founder.site.address[1]}"
        raise FoundingError(f"gossip port {where} cannot be opened: {error.strerror or error}") from error
    contacting = asyncio.create_task(founder.others.contact(), name="meeting founders")
    contacting.add_done_callback(partial(_contact_ended, founder))
    try:
        take_up(founder)
        own = own_membership(founder)
        if own is None:
            warn(founder)
            await settle(founder)
            record = await _hold(founder)
            if record is None or founder.identity.id not in record.value.ids:
                return await founder.wait_to_be_let_in()
            own = await sign(founder, record)
            if own is None:
                return await founder.wait_to_be_let_in()
        founder.member = True
        return Founded(await part(founder, own))
    except asyncio.CancelledError:
        founder.say(f"stopped before this peer entered the mesh: {doing(founder)}; started again, it goes on")
        raise
    finally:
        contacting.cancel()
        await asyncio.gather(contacting, return_exceptions=True)
        await founder.others.close()
        if founder.signing is not None:
            await founder.signing.close()
        await server.close()


def _contact_ended(founder: Founder, contacting: asyncio.Task[None]) -> None:
    error = None if contacting.cancelled() else contacting.exception()
    if error is not None:
        log.error("founders_uncalled", exc_info=error)
        founder.hopeless = f"other founders cannot be called: {error!r}"
        founder.others.wake()


def _electorate(founder: Founder) -> Electorate:
    assert founder.meeting.settled is not None, "founders have settled"
    keys = [founder.meeting.met[node].public_key for node in founder.meeting.settled]
    try:
        return founding(founder.site.trust_domain, keys, threshold=founder.site.rules.threshold_of(len(keys)))
    except TrustError as error:
        raise FoundingError(f"these founders cannot make a mesh: {error}") from error


async def _hold(founder: Founder) -> EpochRecord | None:
    """The founding ceremony; its outcome, None if this peer was let into a mesh meanwhile."""
    if founder.meeting.settled is None:
        return None
    electorate = _electorate(founder)
    try:
        sitting = Sitting(
            keys=founder.keys, electorate=electorate, identity=founder.identity, rules=founder.site.rules,
            share=None, now=founder.clock,
        )  # fmt: skip
    except TrustError as error:
        raise FoundingError(str(error)) from error
    told_at = founder.clock()
    while True:
        frames = founder.read_letters()
        if founder.let_in is not None:
            frames.append(Learned(record=founder.let_in.record.encode()))
        for effect in await sitting.step([*frames, Tick()]):
            match effect:
                case Send():
                    founder.others.send(effect.node, founders.FRAME + effect.data)
                case Sealed():
                    return _keep(founder, effect)
                case Retrying():
                    log.info("founding_retried", extra={"fields": sitting.told(effect)})
                case Rejected():
                    fields = {"node": format_id(effect.node), "reason": effect.reason}
                    log.debug("founding_rejected", extra={"fields": fields})
                case Refused():
                    log.warning("opening_refused", extra={"fields": sitting.told(effect)})
                case Convicted():
                    log.critical("founder_convicted", extra={"fields": sitting.told(effect)})
                case _:
                    assert_never(effect)
        if founder.let_in is not None:
            return None
        if founder.hopeless:
            raise FoundingError(founder.hopeless)
        if founder.clock() - told_at >= TELL_S:
            told_at = founder.clock()
            founder.others.propose()
        deadline = sitting.deadline
        wait_s = TELL_S if deadline is None else min(TELL_S, deadline - founder.clock())
        await founder.others.pause(wait_s)


def _keep(founder: Founder, sealed: Sealed) -> EpochRecord:
    record = sealed.record
    custody = founder.custody = Custody(founder.keys, record.group.public, founder.identity.id)
    try:
        if sealed.share is not None:
            custody.take(record, sealed.share)
        else:
            custody.learn(record)
    except TrustError as error:
        raise FoundingError(f"what came of the ceremony cannot be kept: {error}") from error
    names = [founder.name(node) for node in record.value.ids]
    founder.say(
        f"founded {fingerprint(record)} by {', '.join(sorted(names))}: "
        f"{record.group.threshold} of {len(names)} sign"
    )
    fields = {"fingerprint": fingerprint(record), "founders": ", ".join(sorted(names))}
    log.info("mesh_founded", extra={"fields": fields})
    return record


def fingerprint(record: EpochRecord) -> str:
    """What people compare on all founders: of the founders' keys, the root and all shares' public halves."""
    digest = record.digest.hex()[:32]
    return "-".join(digest[at : at + 4] for at in range(0, len(digest), 4))


def _no_mesh_yet() -> Hello:
    return Hello(root_certificate=b"", issues=False, signers=())
