"""The asking side of identity: how a host gets its credential and its certificates from any member of the mesh.

A joining host trusts nothing but the fingerprint in its token. It connects without a certificate and without
anchors, hears the greeting, and goes on only when the root in it has that fingerprint and the certificate
shown in the handshake is a node's, signed by that root. Nothing is asked before. A member that cannot have anything
signed (it has not heard yet who the signers are) says whom else to ask.

Invariant: what comes back is verified against the root before it is used.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from gossip.events import Address
from peer.io.stream import ALPN, ISSUE, FrameStream, Hello, StreamError, connect, greet
from peer.issuer import CREDENTIAL, LATER, REFUSED, REVOCATION, SVID
from trust.admission import Token, request_join, request_renewal
from trust.authority import root_fingerprint
from trust.credential import Credential, decode_credential, verify_credential
from trust.errors import CredentialError, RevocationError, SvidError, TrustError
from trust.identity import NodeIdentity
from trust.issuance import request_svid
from trust.revocation import Revocation, decode_revocation, verify_revocation
from trust.revoking import request_revocation
from trust.rollover import decode_rollover
from trust.roots import Roots, roots_from
from trust.svid import KeyedSvid, LeafKey, keyed
from trust.tls import client_context_unverified, verify_introduction

_T = TypeVar("_T")

SIGNERS_TRIED_MAX: Final = 8


class EnrollError(Exception):
    """No identity was obtained; the message lists who was asked and what each said."""


class UnreachableError(EnrollError):
    """Nobody who could have granted it answered: trying again later may help."""


class RefusedError(Exception):
    """The request was understood and refused: asking another will not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What makes a host a member: the mesh's roots and what they say of this host. `line` is made of the first root's
    certificate where it is not given, and shared by all that come of this one. Raises SvidError."""

    root_certificate: bytes
    trust_domain: str
    credential: Credential
    line: Roots | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.line is None:
            object.__setattr__(self, "line", Roots(self.root_certificate, self.trust_domain))

    @property
    def roots(self) -> Roots:
        """The first root, and those that followed."""
        assert self.line is not None, "made when this was"
        return self.line

    @property
    def root_public(self) -> bytes:
        """The public key of the newest root."""
        return self.roots.newest


async def join(
    token: Token, identity: NodeIdentity, name: str, seeds: Iterable[Address], now: Callable[[], float]
) -> Membership:
    """Ask for admission, first at `seeds`, then at the token's. Raises EnrollError."""

    async def ask(stream: FrameStream, hello: Hello) -> Membership:
        request = request_join(identity, token, name, now())
        credential = decode_credential(await _ask(stream, CREDENTIAL, request.encode()))
        roots = roots_from(hello.root_certificate, hello.rollovers, token.trust_domain)
        verify_credential(credential, roots, token.trust_domain, int(now()))
        _check_ours(credential, identity)
        return Membership(
            root_certificate=hello.root_certificate,
            trust_domain=token.trust_domain,
            credential=credential,
            line=roots,
        )

    anchor = Anchor(fingerprint=token.root_fingerprint, trust_domain=token.trust_domain, now=now)
    return await _at_a_member("could not join the mesh", [*seeds, *token.seeds], anchor, ask)


async def renew(
    member: Membership, identity: NodeIdentity, signers: Iterable[Address], now: Callable[[], float]
) -> Credential:
    """The next credential. Raises EnrollError."""

    async def ask(stream: FrameStream, _hello: Hello) -> Credential:
        request = request_renewal(identity, member.credential, now())
        credential = decode_credential(await _ask(stream, CREDENTIAL, request.encode()))
        verify_credential(credential, member.roots, member.trust_domain, int(now()))
        _check_ours(credential, identity)
        return credential

    return await _at_a_member("the credential was not renewed", signers, _anchor(member, now), ask)


async def certify(
    member: Membership,
    identity: NodeIdentity,
    spiffe_id: str,
    key: LeafKey,
    signers: Iterable[Address],
    now: Callable[[], float],
) -> KeyedSvid:
    """A certificate for `spiffe_id` and `key`. Raises EnrollError."""

    async def ask(stream: FrameStream, _hello: Hello) -> KeyedSvid:
        request = request_svid(identity, member.credential, spiffe_id, key, now())
        der = await _ask(stream, SVID, request.encode())
        svid = keyed(der, key, root_public=member.roots, trust_domain=member.trust_domain, now=now())
        if svid.identity != spiffe_id:
            raise SvidError(f"the certificate is for {svid.identity}, not for {spiffe_id}")
        return svid

    return await _at_a_member(f"no certificate for {spiffe_id}", signers, _anchor(member, now), ask)


async def revoke(
    member: Membership,
    identity: NodeIdentity,
    subject: str,
    reason: str,
    signers: Iterable[Address],
    now: Callable[[], float],
) -> Revocation:
    """`subject`'s revocation by the mesh root. Raises EnrollError, or RevocationError for what cannot be asked."""
    request = request_revocation(identity, member.credential, subject, reason, now())

    async def ask(stream: FrameStream, _hello: Hello) -> Revocation:
        revocation = decode_revocation(await _ask(stream, REVOCATION, request.encode()))
        verify_revocation(revocation, member.roots, member.trust_domain)
        if revocation.subject != subject or revocation.issuer not in member.roots:
            raise RevocationError(f"what was revoked is {revocation.subject}, not {subject}")
        return revocation

    return await _at_a_member(f"{subject} was not revoked", signers, _anchor(member, now), ask)


async def hear_roots(member: Membership, others: Iterable[Address], now: Callable[[], float]) -> None:
    """Learn of the roots that follow on those known here, from the first of `others` that proves to be of this mesh.
    Raises EnrollError."""

    async def ask(_stream: FrameStream, _hello: Hello) -> None:
        """The greeting has said it all (`follow`)."""

    await _at_a_member("nobody told of the mesh's roots", others, _anchor(member, now), ask)


def _check_ours(credential: Credential, identity: NodeIdentity) -> None:
    """Raises CredentialError for a credential, however true, that was made out to somebody else."""
    if (credential.public_key, credential.agreement_key) != (identity.public_key, identity.agreement_key):
        raise CredentialError("the credential is for other keys than the ones asked for")


# ------------------------------------------------------------------ one caller, one member


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """What the other end has to prove: that it is a node under the root with this fingerprint, or one that leads there.
    `roots` are a member's own, which learn of what follows on them."""

    fingerprint: bytes
    trust_domain: str
    now: Callable[[], float]
    roots: Roots | None = None


def _anchor(member: Membership, now: Callable[[], float]) -> Anchor:
    fingerprint = root_fingerprint(member.roots.newest)
    return Anchor(fingerprint=fingerprint, trust_domain=member.trust_domain, now=now, roots=member.roots)


async def _at_a_member(
    failing: str,
    addresses: Iterable[Address],
    anchor: Anchor,
    ask: Callable[[FrameStream, Hello], Awaitable[_T]],
) -> _T:
    """Try addresses in order, and those of signers they name, until one grants the request.

    A refusal is not the end: it is one member's word, and only the root's signature proves that signers were asked.
    """
    queue = list(dict.fromkeys(addresses))
    failed: dict[Address, str] = {}
    refused = False
    for address in queue:  # grows while it is iterated
        if len(failed) >= SIGNERS_TRIED_MAX:
            break
        try:
            stream, hello = await _call(address, anchor)
        except (StreamError, TrustError) as error:
            failed[address] = str(error)
            continue
        try:
            if hello.issues:
                return await ask(stream, hello)
            failed[address] = "does not know yet who signs for the mesh"
            queue.extend(signer for signer in hello.signers if signer not in queue)
        except RefusedError as error:
            refused = True
            failed[address] = f"refused: {error}"
        except (StreamError, TrustError) as error:
            failed[address] = str(error)
        finally:
            await stream.closed()
    said = [f"{_text(address)}: {reason}" for address, reason in failed.items()]
    kind = EnrollError if refused else UnreachableError
    raise kind(f"{failing}: {'; '.join(said) or 'no seed and no member is known'}")


async def _call(address: Address, anchor: Anchor) -> tuple[FrameStream, Hello]:
    """Connect without a certificate; return once the other end has proved to be a node of the mesh."""
    stream = await connect(address, client_context_unverified(alpn=(ALPN,)))
    try:
        hello = await greet(stream, ISSUE)
        verify_introduction(
            stream.ssl_object,
            hello.root_certificate,
            fingerprint=anchor.fingerprint,
            trust_domain=anchor.trust_domain,
            now=anchor.now(),
            rollovers=hello.rollovers,
            member=anchor.roots is not None,
        )
        if anchor.roots is not None:
            follow(anchor.roots, hello)
    except BaseException:
        await stream.closed()
        raise
    return stream, hello


def follow(roots: Roots, hello: Hello) -> None:
    """Learn of the roots that follow on those known here, told by who proved to be of this line. Raises
    RolloverError."""
    for each in hello.rollovers:
        roots.add(decode_rollover(each))


async def _ask(stream: FrameStream, tag: bytes, body: bytes) -> bytes:
    stream.write(tag + body)
    answer = await stream.read()
    if answer[:1] == REFUSED:
        raise RefusedError(answer[1:].decode(errors="replace"))
    if answer[:1] == LATER:
        raise StreamError(answer[1:].decode(errors="replace"))
    if answer[:1] != tag:
        raise StreamError("it closed the stream" if not answer else "its answer is garbled")
    return answer[1:]


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
