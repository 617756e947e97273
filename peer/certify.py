"""Keeps this host's certificates and its credential fresh.

One X.509-SVID for the node and one per local account, each with a key of its own that never leaves memory.
Renewal is at half-life with jitter; a failure is retried with back-off from RETRY_S_MIN to RETRY_S_MAX, and
what is held goes on serving until it expires. `failures` says what does not work and since when, and `standing` how
bad that is (`peer/renewal.py`): for `gossamer check`, the metrics and the log, which gets loud in the same moment.

Invariant: an identity that is no longer wanted is dropped with its key; one that is wanted is never left
without an attempt due.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final, TypeVar

from gossip.events import Address
from peer.enroll import EnrollError, Membership, certify, renew
from peer.io.store import StoreError
from peer.issuer import Issuer
from peer.renewal import Failure, Standing, standing
from peer.signing import LaterError
from trust.admission import request_renewal
from trust.credential import Credential
from trust.errors import TrustError
from trust.identity import NodeIdentity
from trust.issuance import request_svid
from trust.svid import KeyedSvid, LeafKey, keyed, new_leaf_key, renew_at

log = logging.getLogger("gossamer.certify")

_T = TypeVar("_T")

RETRY_S_MIN: Final = 1.0
RETRY_S_MAX: Final = 60.0
LOOK_S_MAX: Final = 60.0  # between two looks at the clock: it jumps when the host was suspended
AT_ONCE_MAX: Final = 4
ELSEWHERE_MAX: Final = 2
_DOUBLINGS_MAX: Final = 16
CREDENTIAL: Final = "credential"


class Certifier:
    """Runs until cancelled; `changed` is called whenever `held` or `member` has changed, `asked` (which may block) with
    each key before a certificate for it is asked for."""

    def __init__(
        self,
        *,
        member: Membership,
        identity: NodeIdentity,
        issuer: Issuer,
        signers: Callable[[], Iterable[Address]],
        now: Callable[[], float],
        changed: Callable[[], None],
        renewed: Callable[[Credential], None],
        rng: random.Random,
        asked: Callable[[bytes, float], None] = lambda _public, _now: None,
    ) -> None:
        self.member = member
        self.failures: dict[str, Failure] = {}
        self.renewed_total = self.failed_total = 0  # attempts, since the start
        self._held: dict[str, KeyedSvid] = {}
        self._identity = identity
        self._issuer = issuer
        self._signers = signers
        self._now = now
        self._changed = changed
        self._renewed = renewed
        self._rng = rng
        self._asked = asked
        self._pending: dict[
            str, LeafKey
        ] = {}  # asked for and not granted yet: the same key is asked for again
        self._due: dict[str, float] = {}
        self._wake = asyncio.Event()
        credential = member.credential
        self._due[CREDENTIAL] = renew_at(credential.issued_at, credential.expires_at, rng)

    @property
    def held(self) -> Mapping[str, KeyedSvid]:
        """Certificates by SPIFFE ID."""
        return self._held

    def standing(self, name: str) -> Standing:
        """How the renewal of this identity goes; of the credential: `CREDENTIAL`."""
        held = _Lasting(self.member.credential) if name == CREDENTIAL else self._held.get(name)
        return standing(held, self.failures.get(name), self._now())

    def restore(self, svids: Iterable[KeyedSvid]) -> None:
        """Take up certificates of an earlier run that are still valid; they are renewed when their time comes."""
        for svid in svids:
            if svid.not_after > self._now():
                self._held[svid.identity] = svid
                self._due[svid.identity] = renew_at(svid.not_before, svid.not_after, self._rng)

    def want(self, identities: Iterable[str]) -> None:
        """Hold certificates for exactly these SPIFFE IDs."""
        wanted = set(identities)
        for gone in [name for name in self._due if name not in wanted and name != CREDENTIAL]:
            del self._due[gone]
            self._pending.pop(gone, None)
            self._held.pop(gone, None)
            self.failures.pop(gone, None)
        for name in sorted(wanted):
            self._due.setdefault(name, 0.0)
        self._wake.set()

    def hasten(self, names: Iterable[str], within_s: float) -> None:
        """Renew these identities within that time, at moments of chance, if they are not due before."""
        now = self._now()
        for name in names:
            if name in self._due and self._due[name] > now + within_s and name not in self.failures:
                self._due[name] = now + self._rng.uniform(0.0, within_s)
        self._wake.set()

    async def run(self) -> None:
        """Do what is due, for ever."""
        while True:
            self._wake.clear()
            now = self._now()
            due = sorted((at, name) for name, at in self._due.items() if at <= now)[:AT_ONCE_MAX]
            if due:
                await asyncio.gather(*(self._attempt(name) for _, name in due))
                continue
            wait_s = min(min(self._due.values()) - now, LOOK_S_MAX)
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass  # something may be due

    async def _attempt(self, name: str) -> None:
        try:
            if name == CREDENTIAL:
                await self._renew_credential()
            else:
                await self._renew_svid(name)
        except (EnrollError, TrustError, StoreError) as error:
            self._note_failure(name, str(error))
        else:
            self.renewed_total += 1
            failure = self.failures.pop(name, None)
            if failure is not None:
                fields = {"identity": name, "attempts": failure.attempts}
                log.info("renewed_again", extra={"fields": fields})
            self._changed()

    async def _renew_svid(self, name: str) -> None:
        key = self._pending.get(name) or new_leaf_key(secrets.token_bytes)
        self._pending[name] = key
        self._asked(key.public_der, self._now())

        async def here() -> KeyedSvid:
            request = request_svid(self._identity, self.member.credential, name, key, self._now())
            return keyed(
                await self._issuer.svid(request),
                key,
                root_public=self.member.roots,
                trust_domain=self.member.trust_domain,
                now=self._now(),
            )

        svid = await self._here_or_elsewhere(
            here,
            lambda others: certify(self.member, self._identity, name, key, others, self._now),
        )
        self._pending.pop(name, None)
        if name in self._due:
            self._held[name] = svid
            self._due[name] = self._renewal(svid.not_before, svid.not_after)

    async def _renew_credential(self) -> None:
        async def here() -> Credential:
            request = request_renewal(self._identity, self.member.credential, self._now())
            return await self._issuer.credential(request.encode())

        credential = await self._here_or_elsewhere(
            here, lambda others: renew(self.member, self._identity, others, self._now)
        )
        self.member = replace(self.member, credential=credential)
        self._due[CREDENTIAL] = self._renewal(credential.issued_at, credential.expires_at)
        self._renewed(credential)

    async def _here_or_elsewhere(
        self, here: Callable[[], Awaitable[_T]], elsewhere: Callable[[Iterable[Address]], Awaitable[_T]]
    ) -> _T:
        """This peer asks the signers itself. Where it reaches too few of them, it may be the only one who does: some
        others are asked to, few, since when they are too few for everybody, everybody does this."""
        if not self._issuer.ready:
            return await elsewhere(self._signers())
        try:
            return await here()
        except LaterError as error:
            others = list(islice(self._signers(), ELSEWHERE_MAX))
            if not others:
                raise
            try:
                return await elsewhere(others)
            except EnrollError as also:
                raise EnrollError(f"{error}; {also}") from also

    def _renewal(self, not_before: float, not_after: float) -> float:
        """When to renew what was just obtained: never at once, however little life it was given."""
        return max(renew_at(not_before, not_after, self._rng), self._now() + RETRY_S_MIN)

    def _note_failure(self, name: str, reason: str) -> None:
        self.failed_total += 1
        known = self.failures.get(name)
        failure = Failure(
            reason=reason,
            attempts=known.attempts + 1 if known else 1,
            since=known.since if known else self._now(),
        )
        self.failures[name] = failure
        doublings = min(failure.attempts - 1, _DOUBLINGS_MAX)
        wait_s = min(RETRY_S_MAX, RETRY_S_MIN * 2**doublings) * self._rng.uniform(0.5, 1.0)
        if name in self._due:
            self._due[name] = self._now() + wait_s
        fields = {
            "identity": name,
            "reason": reason,
            "attempts": failure.attempts,
            "retry_s": round(wait_s, 1),
        }
        # Loud as long as it is bad, once for each attempt: at most RETRY_S_MAX apart.
        level = logging.ERROR if self.standing(name).level == "fail" else logging.WARNING
        log.log(level, "renewal_failed", extra={"fields": fields})


class _Lasting:
    """A credential's life, as that of a certificate."""

    def __init__(self, credential: Credential) -> None:
        self.not_before, self.not_after = credential.issued_at, credential.expires_at
