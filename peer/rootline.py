"""Every node's part in a rollover: to learn of the new root, to accept it beside the old one, to go over, and to let
the old one go.

    learned    the rollover came with the journal (records of kind `rollover`), or was told by a member that was asked;
               it goes to the disk, and both roots into every TLS context, on the gossip port and in the workers
    told       once the workers have both, this node says so with its membership (`root` in the meta of a member), so
               that everybody sees who has not heard
    gone over  when all members that live have said so, or `switch_at` has come: the chain of epochs crosses to the new
               root (`Custody.cross`), so that from here on everything is asked of its signers; certificates and
               credential that the old one signed are renewed, spread over a while
    let go     when the overlap has ended the old root leaves the contexts

A node that was away for all of that meets members whose certificates it does not believe, and who do not believe its
own. So whoever is refused, or alone, asks any member for its line of roots, without certificates and at most every
CHASE_S: it follows what the roots it knows have signed, and has its credential renewed as any host does that was off.

Invariant: a root is accepted here before this node says so, and certificates under it are shown only by who has
seen all that live say so, or after `switch_at`.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from crdt.record import Record
from gossip.member import Member
from peer.certify import CREDENTIAL
from peer.enroll import EnrollError, hear_roots
from peer.io.keys import KeyFileError
from peer.messages import MetaChanged
from peer.records import EPOCH, ROLLOVER
from peer.rootfile import told_roots
from trust.bundle import TrustBundle
from trust.credential import Credential
from trust.epoch import EpochRecord, decode_epoch
from trust.errors import RolloverError, SvidError, TrustError
from trust.rollover import Rollover, decode_rollover, name_of
from trust.roots import GIVEN_UP, Roots, refusal
from trust.svid import KeyedSvid, read_svid

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.rollover")

Dot: TypeAlias = tuple[bytes, str, int]

TAG_CHARS: Final = 8
CHASE_S: Final = 10.0
RENEWAL_S_EACH: Final = 0.05  # of a mesh's renewals after it has gone over: times its members
RENEWAL_S_MIN: Final = 1.0
RENEWAL_SHARE: Final = 0.25  # at most so much of what is left of the overlap


class RootLine:
    """See the module's theory."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._taken: set[Dot] = set()
        self._accepted = self._roots.accepted(daemon.clock.now())
        self._learned = len(self._roots)
        self._unsaved = False
        self._chased_at = float("-inf")
        self._chasing: asyncio.Task[None] | None = None
        self._refused = 0
        self._judged: dict[bytes, bool] = {}  # by certificate: whether an older root signed it
        self._carried: Mapping[bytes, Credential] | None = None
        self.announced = ""
        self.problem = ""  # why nobody told of roots when they were asked
        self._moved = asyncio.Event()

    async def until_moved(self) -> None:
        """Return when a root was learned of, or a rollover has ended at its signers."""
        await self._moved.wait()

    def tell_moved(self) -> None:
        """A rollover came further here."""
        self._moved.set()
        self._moved = asyncio.Event()

    @property
    def _roots(self) -> Roots:
        return self._daemon.membership.roots

    @property
    def tag(self) -> str:
        """What members that accept the newest root say; "" where there is only one."""
        return name_of(self._roots.newest)[:TAG_CHARS] if len(self._roots) > 1 else ""

    def carries(self, credential: Credential) -> bool:
        """Whether its node was known as a member, with these rights, when a root was given up as compromised, while one
        is: whoever holds that root may also be a member that gives itself more."""
        if self._carried is None:
            return True
        known = self._carried.get(credential.node)
        return known is not None and _rights(known) == _rights(credential)

    def waiting(self) -> list[Member]:
        """Members that live and have not said that they accept the newest root."""
        tag = self.tag
        if not tag:
            return []
        return [m for m in self._daemon.node.engine.members() if m.live and m.meta.get("root") != tag]

    # -------------------------------------------------------------- learning

    def take_in(self) -> None:
        """Learn what the journal holds."""
        records = [(_dot(each), each) for each in self._daemon.journal.records(ROLLOVER) if each.payload]
        self._taken &= {dot for dot, _ in records}
        waiting = [(dot, each) for dot, each in records if dot not in self._taken]
        while waiting:  # each step that is known may be the one that another waits for
            known = len(self._roots)
            waiting = [(dot, each) for dot, each in waiting if not self._take(dot, each)]
            if len(self._roots) == known:
                break
        self._taken.update(dot for dot, _ in waiting)  # of other roots: anybody may make some up
        self._follow()

    def _take(self, dot: Dot, record: Record) -> bool:
        """Whether there is nothing more to be had from that record."""
        try:
            rollover = decode_rollover(record.payload)
            if rollover.terms.old not in self._roots:
                return False
            self._roots.add(rollover)
        except RolloverError as error:
            log.error("rollover_refused", extra={"fields": {"reason": str(error)}})
        self._taken.add(dot)
        return True

    def _follow(self) -> None:
        """Take note of what was learned, from the journal or elsewhere."""
        roots = self._roots
        if len(roots) == self._learned and not self._unsaved:
            return
        self._unsaved = not told_roots(self._daemon.keys, roots)
        if len(roots) == self._learned:
            return
        self._learned = len(roots)
        self._judged.clear()
        self._taken.clear()  # what led nowhere may lead on from here
        step = roots.rollovers[-1]
        self._carry(step)
        fields = {
            "old": name_of(step.terms.old), "new": name_of(step.terms.new), "switch_at": step.terms.switch_at,
            "ends_at": step.terms.ends_at, "compromised": step.terms.compromised,
        }  # fmt: skip
        log.warning("root_follows", extra={"fields": fields})
        self._swap()
        self.tell_moved()
        self._daemon.rollover.changed()

    def _carry(self, step: Rollover) -> None:
        """Of a compromised root only those are carried over whom this node knew when it heard (or, if it has started
        since, whom it knew then)."""
        if step.terms.compromised:
            self._carried = dict(self._daemon.registry.credentials)

    def _swap(self) -> None:
        """The roots that count are others now."""
        daemon = self._daemon
        accepted = self._roots.accepted(daemon.clock.now())
        if accepted == self._accepted:
            return
        gone = [name_of(each) for each in self._accepted if each not in accepted]
        self._accepted = accepted
        daemon.bundle = TrustBundle(daemon.membership.trust_domain, daemon.outlook.anchors())
        daemon.channels.trust(daemon.bundle)
        daemon.dataplane.changed()
        log.info("roots_accepted", extra={"fields": {"roots": [name_of(each) for each in accepted]}})
        if gone:
            log.warning("root_retired", extra={"fields": {"roots": gone}})
            daemon.channels.cut_mistrusted()
            daemon.succession.letters.cut(daemon.channels.is_mistrusted)
            try:
                daemon.custody.let_go(accepted)
            except KeyFileError as error:  # they go a minute after any change of the signers as well
                log.error("shares_kept", extra={"fields": {"reason": str(error)}})

    # -------------------------------------------------------------- what hangs on the clock

    def tick(self) -> None:
        """What is due; called once a second or so."""
        self._follow()
        self._swap()
        self._announce()
        self._go_over()
        self._hasten()
        self._chase()

    def begin(self) -> None:
        """After a start: a root that was given up as compromised may still count."""
        now = self._daemon.clock.now()
        for step in self._roots.rollovers:
            if now < step.terms.ends_at:
                self._carry(step)

    def _announce(self) -> None:
        daemon = self._daemon
        served = daemon.dataplane.served
        tag = self.tag
        if tag == self.announced or served is None:
            return
        if served.trust_bundle_pem != daemon.outlook.bundle_pem():
            return  # the workers come first
        self.announced = tag
        if not daemon.stopping:
            daemon.driver.feed(MetaChanged(meta=daemon.outlook.meta(draining=False)))

    def _go_over(self) -> None:
        daemon = self._daemon
        step = self._roots.step_from(daemon.custody.root)
        if step is None or not daemon.rollover.recalled or self._unsaved:
            return  # what the new root signs is not to be found on a disk that does not know it
        early = daemon.clock.now() < step.terms.switch_at
        if early and (self.waiting() or daemon.rollover.unsealed):
            return
        record = self.first_epoch(step)
        if record is None:
            return
        try:
            daemon.custody.cross(step, record)
        except (TrustError, KeyFileError) as error:  # tried again
            log.warning("root_not_used", extra={"fields": {"reason": str(error)}})
            return
        log.warning("root_used", extra={"fields": {"root": name_of(step.terms.new), "epoch": record.epoch}})

    def first_epoch(self, step: Rollover) -> EpochRecord | None:
        """The epoch with which the new root begins."""
        rolling = self._daemon.custody.next
        if rolling is not None and rolling.after.digest == step.terms.record:
            return rolling.after
        for record in self._daemon.journal.records(EPOCH):
            found = _epoch(record, step.terms.record)
            if found is not None:
                return found
        return None

    # -------------------------------------------------------------- certificates

    def _hasten(self) -> None:
        """Have what an older root signed renewed, once the newest one signs, or the older one counts no more."""
        daemon, roots = self._daemon, self._roots
        if len(roots) == 1:
            return
        held = daemon.certifier.held
        older = [name for name, svid in held.items() if self._is_older(svid)]
        credential = daemon.certifier.member.credential
        signed, signature = credential.signing_bytes(), credential.signature
        if refusal(roots.newest, signed, signature, None):
            older.append(CREDENTIAL)
        now = daemon.clock.now()
        if daemon.custody.root != roots.newest and not refusal(roots, signed, signature, now):
            return
        if older:
            daemon.certifier.hasten(older, self._spread_s(now))

    def _is_older(self, svid: KeyedSvid) -> bool:
        known = self._judged.get(svid.chain_pem)
        if known is None:
            known = _signed_by_another(svid, self._roots.newest, self._daemon.membership.trust_domain)
            self._judged = {each.chain_pem: self._judged[each.chain_pem] for each in self._held_and_judged()}
            self._judged[svid.chain_pem] = known
        return known

    def _held_and_judged(self) -> Iterable[KeyedSvid]:
        return (each for each in self._daemon.certifier.held.values() if each.chain_pem in self._judged)

    def _spread_s(self, now: float) -> float:
        """Everybody renews: not all at once, and in good time."""
        members = len(self._daemon.node.engine.members())
        ends_at = self._roots.ends_at(self._roots.line[-2])
        left_s = max(0.0, (ends_at or now) - now)
        return min(max(RENEWAL_S_MIN, RENEWAL_S_EACH * members), max(RENEWAL_S_MIN, RENEWAL_SHARE * left_s))

    # -------------------------------------------------------------- who was away

    def _chase(self) -> None:
        daemon = self._daemon
        loop_s = asyncio.get_running_loop().time()
        others = (m for m in daemon.node.engine.members() if m.id != daemon.identity.id)
        alone = not any(m.live for m in others)
        refused = daemon.channels.mistrusted
        if loop_s - self._chased_at < CHASE_S or not (alone or refused != self._refused):
            return
        if self._chasing is not None and not self._chasing.done():
            return
        self._chased_at, self._refused = loop_s, refused
        self._chasing = asyncio.create_task(self._ask_for_roots())

    async def _ask_for_roots(self) -> None:
        daemon = self._daemon
        try:
            await hear_roots(daemon.certifier.member, daemon.outlook.signers(), daemon.clock.now)
        except (EnrollError, TrustError) as error:
            given_up = GIVEN_UP in str(error) and GIVEN_UP not in self.problem
            if given_up or not self.problem:
                log.warning("roots_unheard", extra={"fields": {"reason": str(error)}})
            self.problem = str(error)
        else:
            self.problem = ""

    async def close(self) -> None:
        """End what is under way."""
        if self._chasing is not None:
            self._chasing.cancel()
            await asyncio.gather(self._chasing, return_exceptions=True)


def _rights(credential: Credential) -> tuple[object, ...]:
    return credential.name, credential.services, credential.publish, credential.invite, credential.govern


def _dot(record: Record) -> Dot:
    return record.writer, record.key, record.seq


def _epoch(record: Record, digest: bytes) -> EpochRecord | None:
    try:
        epoch = decode_epoch(record.payload)
    except TrustError:
        return None  # `Epochs.take_in` has said so
    return epoch if epoch.digest == digest else None


def _signed_by_another(svid: KeyedSvid, root_public: bytes, trust_domain: str) -> bool:
    der = ssl.PEM_cert_to_DER_cert(svid.chain_pem.decode("ascii"))
    try:
        read_svid(der, root_public=root_public, trust_domain=trust_domain)
    except SvidError:
        return True
    return False
