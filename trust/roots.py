"""The roots of one mesh: the one it was founded with, those that followed on it, and which of them count now.

Almost always there is one, and then all of this says what its public key alone would say. A rollover
(`trust/rollover.py`) adds the next one at the end of a line that begins with the root that this mesh was founded with,
the same for all members. What counts is asked in two ways:

    at a moment     the newest root, and each older one until its overlap has ended: credentials, certificates, tokens
    without one     any root of the line: what a member signed while it was one stays true, so records that were made
                    long ago are authentic on every replica, whenever it came

A root that was retired counts for one thing more, for a `grace`: who was away for all of the overlap shows what that
root signed for it and has it renewed. One that was given up as compromised has no grace, and those before it end with
it: else nobody could be rid of one of which it turns out during its overlap, or its grace, that it was stolen.

Of two rollovers of one root that name different successors the first that came here is followed, for ever, and both
are kept as a proof. A line has ROLLOVERS_MAX steps.

Whoever verifies takes a `Root`: one public key, or these. So all that is said in `trust` of "the root" holds of both.

Invariant: every root but the first is here because the one before it, and itself, signed so.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

from trust.authority import read_root, root_fingerprint
from trust.errors import RolloverError, SvidError, span
from trust.identity import verify
from trust.rollover import Rollover, conflict, decode_rollover, name_of, verify_rollover

ROLLOVERS_MAX: Final = 16

GIVEN_UP: Final = "given up as compromised"
NOT_SIGNED: Final = "is not signed by the mesh root"


class Roots:
    """See the module's theory. `certificate` (DER) is the first root's. Raises SvidError."""

    __slots__ = ("_certificates", "_conflicts", "_line", "_steps", "added", "trust_domain")

    def __init__(self, certificate: bytes, trust_domain: str, rollovers: Iterable[Rollover] = ()) -> None:
        self.trust_domain = trust_domain
        first = read_root(certificate, trust_domain)
        self._line = [first]
        self._certificates = {first: certificate}
        self._steps: dict[bytes, Rollover] = {}  # by the old root
        self._conflicts: dict[bytes, Rollover] = {}  # the one that is not followed, by the old root
        self.added = 0  # how often there was news
        for each in rollovers:
            self.add(each)

    # -------------------------------------------------------------- what there is

    @property
    def first(self) -> bytes:
        """The root this mesh was founded with."""
        return self._line[0]

    @property
    def newest(self) -> bytes:
        """The one that all others lead to."""
        return self._line[-1]

    @property
    def line(self) -> tuple[bytes, ...]:
        """All of them, oldest first."""
        return tuple(self._line)

    @property
    def rollovers(self) -> tuple[Rollover, ...]:
        """The steps from one to the next, oldest first."""
        return tuple(self._steps[public] for public in self._line[:-1])

    @property
    def conflicts(self) -> tuple[tuple[Rollover, Rollover], ...]:
        """Proofs that signers lied: the rollover that is followed, and another one of the same root."""
        return tuple((self._steps[old], other) for old, other in sorted(self._conflicts.items()))

    def step_from(self, public: bytes) -> Rollover | None:
        """How that root is followed; None for the newest, and for one that is none of the mesh's."""
        return self._steps.get(public)

    def certificate(self, public: bytes) -> bytes:
        """The certificate (DER) of a root of the line."""
        return self._certificates[public]

    def by_fingerprint(self, fingerprint: bytes) -> bytes | None:
        """The root of the line with that fingerprint."""
        return next((each for each in self._line if root_fingerprint(each) == fingerprint), None)

    def __contains__(self, public: object) -> bool:
        return public in self._certificates

    def __len__(self) -> int:
        return len(self._line)

    def __repr__(self) -> str:
        return f"Roots({self.trust_domain}, {' -> '.join(name_of(each) for each in self._line)})"

    # -------------------------------------------------------------- what comes

    def add(self, rollover: Rollover) -> bool:
        """Whether it is followed from now on. Raises RolloverError: it is not true, leads from a root that is not
        known here (and has to come again when that is), back to one that was, or too far."""
        terms = rollover.terms
        known = self._steps.get(terms.old)
        if known is not None and known.terms == terms:
            return False
        if terms.old not in self:
            raise RolloverError(f"the rollover is of a root that is not known here, {name_of(terms.old)}")
        verify_rollover(rollover, self.trust_domain)
        if known is not None:
            if conflict(known, rollover) and terms.old not in self._conflicts:
                self._conflicts[terms.old] = rollover
                self.added += 1
            return False
        if terms.new in self:
            raise RolloverError(f"the rollover leads back to a root that was, {name_of(terms.new)}")
        if len(self._steps) >= ROLLOVERS_MAX:
            raise RolloverError(f"a mesh goes over to another root {ROLLOVERS_MAX} times at most")
        self._steps[terms.old] = rollover
        self._line.append(terms.new)
        self._certificates[terms.new] = rollover.certificate
        self.added += 1
        return True

    # -------------------------------------------------------------- what counts

    def ends_at(self, public: bytes) -> float | None:
        """When (Unix s) that root counts no more; None for the newest."""
        return self._end(public, 0.0)

    def compromised(self, public: bytes) -> bool:
        """Whether it, or one after it, was given up because somebody else may hold it."""
        return any(step.terms.compromised for step in self._from(public))

    def accepted(self, now: float, *, grace_s: float = 0.0) -> tuple[bytes, ...]:
        """Those that count at `now` (Unix s), or did less than `grace_s` ago, oldest first."""
        return tuple(each for each in self._line if self._counts(each, now, grace_s))

    def signer_of(self, message: bytes, signature: bytes) -> bytes | None:
        """Which root of the line signed that, whether it counts or not."""
        return next((each for each in reversed(self._line) if verify(each, message, signature)), None)

    def why_not(self, public: bytes, now: float, *, grace_s: float = 0.0) -> str:
        """Why what `public` signed does not count at `now`; "" if it does."""
        if self._counts(public, now, grace_s):
            return ""
        ends_at = self.ends_at(public)
        if ends_at is None:
            return NOT_SIGNED
        how = GIVEN_UP if self.compromised(public) else "retired"
        return f"is signed by the root {name_of(public)}, which was {how} {span(max(0.0, now - ends_at))} ago"

    def _counts(self, public: bytes, now: float, grace_s: float) -> bool:
        if public not in self:
            return False
        end = self._end(public, grace_s)
        return end is None or now < end

    def _end(self, public: bytes, grace_s: float) -> float | None:
        step, *later = self._from(public) or (None,)
        if step is None:
            return None
        own = step.terms.ends_at + (0.0 if step.terms.compromised else grace_s)
        return min([own, *(each.terms.ends_at for each in later if each.terms.compromised)])

    def _from(self, public: bytes) -> tuple[Rollover, ...]:
        """The steps that lead on from that root."""
        return self.rollovers[self._line.index(public) :] if public in self else ()


Root: TypeAlias = bytes | Roots  # what signatures of "the root" are held against


def refusal(root: Root, message: bytes, signature: bytes, now: float | None, *, grace_s: float = 0.0) -> str:
    """Why `signature` over `message` is none of the root's that counts at `now`, as the end of a sentence; "" if it is.
    With `now` None each root of the line counts."""
    if isinstance(root, bytes):
        return "" if verify(root, message, signature) else NOT_SIGNED
    public = root.signer_of(message, signature)
    if public is None:
        return NOT_SIGNED
    return "" if now is None else root.why_not(public, now, grace_s=grace_s)


def signer_of(root: Root, message: bytes, signature: bytes) -> bytes:
    """The root that signed that, or would have to have: the newest, where none did."""
    return root if isinstance(root, bytes) else root.signer_of(message, signature) or root.newest


def is_root(root: Root, public: bytes) -> bool:
    """Whether `public` is the root, or one of the line."""
    return public == root if isinstance(root, bytes) else public in root


def first_of(root: Root) -> bytes:
    """The public key that names the mesh: it stays when the root does not."""
    return root if isinstance(root, bytes) else root.first


def newest_of(root: Root) -> bytes:
    """The public key that new things are signed under, where nothing else says so."""
    return root if isinstance(root, bytes) else root.newest


def roots_from(certificate: bytes, rollovers: Iterable[bytes], trust_domain: str) -> Roots:
    """The line that somebody tells: the first certificate and the encoded rollovers after it, in order. It is true in
    itself; whether it is this mesh's, `check_pinned` says. Raises SvidError, RolloverError."""
    from_first = Roots(certificate, trust_domain)
    for data in rollovers:
        if not from_first.add(decode_rollover(data)):
            raise RolloverError("the line of roots holds a step twice")
    return from_first


def check_pinned(roots: Roots, fingerprint: bytes, now: float, *, member: bool = False) -> None:
    """Raise SvidError unless the root with `fingerprint` (a token's, say) is of this line and counts at `now` (Unix s).
    A `member` that was away follows it from any root, but from one that was given up as compromised."""
    pinned = roots.by_fingerprint(fingerprint)
    if pinned is None:
        behind = ", or has not heard yet of the root that is known here" if member else ""
        raise SvidError(
            f"the peer belongs to another mesh{behind}: its root is {root_fingerprint(roots.newest).hex()[:16]}…, "
            f"known here is {fingerprint.hex()[:16]}…"
        )
    reason = roots.why_not(pinned, now)
    if not reason or (member and not roots.compromised(pinned)):
        return
    name = name_of(pinned)
    if roots.compromised(pinned):
        raise SvidError(
            f"the root {name} was {GIVEN_UP}, so that nothing it says leads to the next one: join again "
            "with a new token"
        )
    raise SvidError(f"the root {name}, which the token names, was retired: ask for a new token")
