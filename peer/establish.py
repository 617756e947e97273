"""How a host comes by its membership: resume it, found a mesh, or join one with a token.

The first start writes, in this order: the node's seed, then (when founding) the root's seed, then root
certificate and credential, and then turns the root's seed into the share of a group of one (`peer/custody.py`). Each
file is durable before the next is made, so a crash between any two leaves a host that can try again as the same node.

What is on disk is taken up whole or refused by the name of the file that is wrong: where a member's key is missing, no
other is made in its place, and where its root is, no other mesh is founded or joined beside its old state.

Invariant: a host that is a member stays that member; neither `--bootstrap` nor a token given again changes it.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from gossip.events import Address
from peer.config import Config
from peer.custody import Custody
from peer.enroll import EnrollError, Membership, UnreachableError, join, renew
from peer.founded import forget
from peer.founder import Founder, FoundingError, LetIn, Site
from peer.founding import found_together
from peer.io.keys import KeyFile, Keys
from peer.rootfile import complete_line, load_roots, store_roots
from trust.admission import Token, TokenLedger, found, issue_credential, parse_token, request_renewal
from trust.authority import Authority, root_certificate, root_fingerprint
from trust.ceremony.alone import founded_alone
from trust.credential import Credential, decode_credential, verify_credential
from trust.errors import BootstrapError, CredentialError, TrustError
from trust.held import HeldAuthority
from trust.identity import SEED_BYTES, NodeIdentity
from trust.revocation import RevocationSet
from trust.roots import Roots

log = logging.getLogger("gossamer.establish")

JOIN_TRIES_S: Final = 10.0  # how long a first start waits for seeds that do not answer
RETRY_S: Final = 0.5

_T = TypeVar("_T")


class EstablishError(Exception):
    """This host is no member and could not become one; the message says why and what to do. `code` is the exit code: 2
    when what was asked for cannot be, whoever is asked."""

    def __init__(self, message: str, *, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Established:
    """Who this host is, and what it holds of the root. `met` is where its token says the mesh can be entered; `founds`
    that the mesh began with this host, and that it has not begun to take part in it yet."""

    identity: NodeIdentity
    membership: Membership
    custody: Custody
    first_start: bool
    met: tuple[Address, ...] = ()
    founds: bool = False


async def establish(
    config: Config,
    keys: Keys,
    now: Callable[[], float],
    contacts: Iterable[Address] = (),
    *,
    entered: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> Established:
    """Resume, found or join. `contacts` are members of an earlier run, `entered` says that the database is a member's,
    `say` tells the operator a line at once. Raises EstablishError, KeyFileError."""
    contacts = tuple(contacts)
    seed = keys.read(KeyFile.NODE_SEED)
    if seed is None:
        _refuse_lost_key(keys, known=bool(contacts) or entered)
        seed = secrets.token_bytes(SEED_BYTES)
        keys.write(KeyFile.NODE_SEED, seed)
    identity = NodeIdentity.from_seed(seed)
    await complete_line(keys, [*config.seeds, *contacts], now)
    membership = _resume(config, keys, identity)
    parting = keys.read(KeyFile.FOUNDERS) is not None  # others may need this founder to become members
    if config.bootstrap_expect and (membership is None or parting):
        return await _found_together(config, keys, identity, now, say)
    if membership is not None:
        _check_token(config, membership)
        custody = _custody(keys, membership, identity)
        signers = [*config.seeds, *contacts, *_seeds_of(config.token)]
        membership = await _refreshed(keys, identity, membership, _alone(custody), signers, now)
        return Established(
            identity=identity,
            membership=membership,
            custody=custody,
            first_start=False,
            met=_seeds_of(config.token),
            founds=keys.read(KeyFile.FOUNDER_SINCE) is not None,
        )
    met: tuple[Address, ...] = ()
    if config.bootstrap:
        membership = _found(config, keys, identity, now)
    elif config.token is not None:
        token = _parsed(config.token)
        _refuse_other_mesh(config, keys, token)
        membership = await _join(config, token, identity, now)
        met = token.seeds
    else:
        raise EstablishError(
            f"{config.data_dir} holds no membership: found a mesh with --bootstrap, or join one with --token "
            "(made by `gossamer token create` on a member) and --seed; several peers make one together with "
            "--bootstrap-expect",
            code=2,
        )
    _keep(keys, membership)
    custody = _custody(keys, membership, identity)
    return Established(identity=identity, membership=membership, custody=custody, first_start=True, met=met)


def _keep(keys: Keys, membership: Membership) -> None:
    """Make a new membership durable, the credential last: only with it is this host a member. Raises KeyFileError."""
    keys.write(KeyFile.ROOT_CERTIFICATE, membership.root_certificate)
    store_roots(keys, membership.roots)
    keys.write(KeyFile.CREDENTIAL, membership.credential.encode())


async def _found_together(
    config: Config, keys: Keys, identity: NodeIdentity, now: Callable[[], float], say: Callable[[str], None]
) -> Established:
    """A mesh of several, or this founder's way into it when it runs already. Raises EstablishError, KeyFileError."""
    if config.bootstrap_secret is not None and keys.read(KeyFile.FOUNDERS) is None:
        try:
            config.bootstrap_secret.check(now())  # who has begun goes on: its key is its claim
        except BootstrapError as error:
            raise EstablishError(str(error)) from error
    site = Site(
        name=config.name,
        bind=config.bind,
        address=config.gossip_address,
        seeds=config.seeds,
        expect=config.bootstrap_expect,
        secret=config.bootstrap_secret,
        trust_domain=config.trust_domain,
        rules=config.ca.rules,
    )
    try:
        outcome = await found_together(Founder(site, keys, identity, now, say))
    except FoundingError as error:
        raise EstablishError(str(error)) from error
    if isinstance(outcome, LetIn):
        _refuse_other_mesh(config, keys, outcome.token)
        membership = await _join(config, outcome.token, identity, now)
        _keep(keys, membership)
        forget(keys, founded=False)
    else:
        membership = outcome.membership
    custody = _custody(keys, membership, identity)
    if isinstance(outcome, LetIn):
        custody.learn(outcome.record)
    return Established(
        identity=identity,
        membership=membership,
        custody=custody,
        first_start=True,
        founds=not isinstance(outcome, LetIn),
    )


def _custody(keys: Keys, membership: Membership, identity: NodeIdentity) -> Custody:
    """What this host holds of the root. Raises KeyFileError."""
    return Custody.load(keys, membership.roots, identity=identity, trust_domain=membership.trust_domain)


def _alone(custody: Custody) -> Authority | None:
    """The root, if one share of it is enough and that one is held here."""
    group = custody.group
    mine = [share for share in custody.shares if share.group == group]
    return HeldAuthority(mine, secrets.token_bytes) if mine and mine[0].group.threshold == 1 else None


def _refuse_lost_key(keys: Keys, *, known: bool) -> None:
    """Raises EstablishError where a node has lived whose key is missing: another key would be another node."""
    others = [
        keys.path(file) for file in KeyFile if file is not KeyFile.NODE_SEED and keys.path(file).exists()
    ]
    if others or known:
        why = f"{others[0]} is there" if others else "this data directory is a member's"
        raise EstablishError(
            f"{keys.path(KeyFile.NODE_SEED)}: is missing, although {why}: put it back from a backup, or name another "
            "--data-dir to begin anew as another node"
        )


def _refuse_other_mesh(config: Config, keys: Keys, token: Token) -> None:
    """Before a host whose credential is missing joins: raises EstablishError where that would lead into another mesh
    than the one whose root is here."""
    root = keys.read(KeyFile.ROOT_CERTIFICATE)
    if root is None:
        return
    path = keys.path(KeyFile.ROOT_CERTIFICATE)
    roots = _roots_of(keys, root, config.trust_domain, path)
    if roots.by_fingerprint(token.root_fingerprint) is None:
        raise EstablishError(f"{path}: is the root of another mesh than the token's", code=2)


def _roots_of(keys: Keys, root: bytes, trust_domain: str, path: Path) -> Roots:
    try:
        return load_roots(keys, root, trust_domain)
    except TrustError as error:
        raise EstablishError(
            f"{path}: {error}; put it back from a backup or from any other member, where it is the same"
        ) from error


def _resume(config: Config, keys: Keys, identity: NodeIdentity) -> Membership | None:
    encoded = keys.read(KeyFile.CREDENTIAL)
    if encoded is None:
        return None
    path, root_path = keys.path(KeyFile.CREDENTIAL), keys.path(KeyFile.ROOT_CERTIFICATE)
    root = keys.read(KeyFile.ROOT_CERTIFICATE)
    if root is None:
        raise EstablishError(
            f"{root_path}: is missing; put it back from a backup or from any other member, where it is the same"
        )
    mend = "put it back from a backup, or remove it and join again with a token"
    try:
        credential = decode_credential(encoded)
    except TrustError as error:
        raise EstablishError(f"{path}: {error}; {mend}") from error
    roots = _roots_of(keys, root, credential.trust_domain, root_path)
    try:
        verify_credential(credential, roots, credential.trust_domain, None)
    except TrustError as error:
        raise EstablishError(f"{path}: {error}; {mend}") from error
    if credential.public_key != identity.public_key:
        raise EstablishError(
            f"{path}: is the credential of another node than {keys.path(KeyFile.NODE_SEED)}: put both back from one "
            "backup"
        )
    if credential.name != config.name:
        log.info("name_kept", extra={"fields": {"name": credential.name, "configured": config.name}})
    return Membership(
        root_certificate=root, trust_domain=credential.trust_domain, credential=credential, line=roots
    )


async def _refreshed(
    keys: Keys,
    identity: NodeIdentity,
    membership: Membership,
    authority: Authority | None,
    signers: Iterable[Address],
    now: Callable[[], float],
) -> Membership:
    """The membership with a credential that has not expired."""
    try:
        verify_credential(membership.credential, membership.roots, membership.trust_domain, int(now()))
    except CredentialError as error:
        log.warning("credential_stale", extra={"fields": {"reason": str(error)}})
    else:
        return _governing(keys, identity, membership, authority, now)
    try:
        if authority is not None:
            credential = _reissue(authority, identity, membership, now)
        else:
            asked = tuple(signers)
            credential = await _patiently(now, lambda: renew(membership, identity, asked, now))
    except (EnrollError, TrustError) as error:
        raise EstablishError(f"this host's credential has expired and {error}") from error
    store_roots(keys, membership.roots)  # who was asked may have told of a root that followed
    keys.write(KeyFile.CREDENTIAL, credential.encode())
    renewed = replace(membership, credential=credential)
    return _governing(keys, identity, renewed, authority, now)


def _governing(
    keys: Keys,
    identity: NodeIdentity,
    membership: Membership,
    authority: Authority | None,
    now: Callable[[], float],
) -> Membership:
    """The membership of one who governs, if this host holds the whole root: a mesh founded before anybody governed has
    its governor from here. Raises EstablishError."""
    old = membership.credential
    if authority is None or old.govern:
        return membership
    try:
        credential = found(
            authority,
            identity,
            old.name,
            trust_domain=membership.trust_domain,
            now=max(int(now()), old.issued_at + 1),  # the newest is kept everywhere
            entropy=secrets.token_bytes,
        )
    except TrustError as error:
        raise EstablishError(f"this host holds the root, but could not certify itself: {error}") from error
    keys.write(KeyFile.CREDENTIAL, credential.encode())
    log.info("governs", extra={"fields": {"name": credential.name}})
    return replace(membership, credential=credential)


def _reissue(
    authority: Authority, identity: NodeIdentity, membership: Membership, now: Callable[[], float]
) -> Credential:
    """A signer's own next credential, before anything else of it runs. Raises TrustError."""
    issued = issue_credential(
        authority,
        request_renewal(identity, membership.credential, now()),
        trust_domain=membership.trust_domain,
        now=int(now()),
        entropy=secrets.token_bytes,
        ledger=TokenLedger(),
        revoked=RevocationSet(membership.roots),
    )
    return issued.credential


def _found(config: Config, keys: Keys, identity: NodeIdentity, now: Callable[[], float]) -> Membership:
    """A mesh of one, or the rest of its founding where a crash cut that short. The root's seed stays until the
    membership is on disk."""
    root, path = keys.read(KeyFile.ROOT_CERTIFICATE), keys.path(KeyFile.ROOT_CERTIFICATE)
    try:
        if root is not None:
            roots = _roots_of(keys, root, config.trust_domain, path)
            custody = Custody.load(keys, roots, identity=identity, trust_domain=config.trust_domain)
            authority = _alone(custody)
            if authority is None:
                raise EstablishError(
                    f"{path}: is the root of a mesh already, and its key is not here: put "
                    f"{KeyFile.CREDENTIAL.value} and the root's key back from a backup, or name another --data-dir to "
                    "found another mesh"
                )
        else:
            seed = keys.read(KeyFile.AUTHORITY_SEED)
            if seed is None:
                seed = secrets.token_bytes(SEED_BYTES)
                keys.write(KeyFile.AUTHORITY_SEED, seed)
            _, share = founded_alone(identity, config.trust_domain, seed)
            authority = HeldAuthority([share], secrets.token_bytes)
            root = root_certificate(authority, config.trust_domain, int(now()))
        credential = found(
            authority,
            identity,
            config.name,
            trust_domain=config.trust_domain,
            now=int(now()),
            entropy=secrets.token_bytes,
        )
    except TrustError as error:
        raise EstablishError(f"the mesh could not be founded: {error}") from error
    log.info("mesh_founded", extra={"fields": {"trust_domain": config.trust_domain}})
    return Membership(root_certificate=root, trust_domain=config.trust_domain, credential=credential)


def _parsed(text: str) -> Token:
    try:
        return parse_token(text)
    except TrustError as error:
        raise EstablishError(str(error), code=2) from error


def _check_token(config: Config, membership: Membership) -> None:
    """A token of the mesh this host is in has done its work; one of another mesh is somebody's mistake."""
    try:
        token = parse_token(config.token) if config.token is not None else None
    except TrustError:
        return  # expired or not, nothing depends on it any more
    if token is not None and membership.roots.by_fingerprint(token.root_fingerprint) is None:
        raise EstablishError(
            f"the token is for another mesh (root {token.root_fingerprint.hex()[:16]}…), and {config.data_dir} is a "
            f"member of one already (root {root_fingerprint(membership.roots.newest).hex()[:16]}…): "
            "give another --data-dir to join the other mesh",
            code=2,
        )


def _seeds_of(token: str | None) -> tuple[Address, ...]:
    """Where a token that is no longer needed says the mesh can be entered."""
    try:
        return parse_token(token).seeds if token is not None else ()
    except TrustError:
        return ()  # nothing depends on it any more


async def _join(config: Config, token: Token, identity: NodeIdentity, now: Callable[[], float]) -> Membership:
    try:
        return await _patiently(now, lambda: join(token, identity, config.name, config.seeds, now))
    except (EnrollError, TrustError) as error:
        raise EstablishError(str(error)) from error


async def _patiently(now: Callable[[], float], ask: Callable[[], Awaitable[_T]]) -> _T:
    """What `ask` gets, once somebody answers. Raises EnrollError."""
    gives_up_at = now() + JOIN_TRIES_S
    told = ""
    while True:
        try:
            return await ask()
        except UnreachableError as error:
            if now() + RETRY_S > gives_up_at:
                raise UnreachableError(f"{error} (tried for {JOIN_TRIES_S:g} s)") from error
            if told != str(error):
                told = str(error)
                log.warning("signers_unreachable", extra={"fields": {"reason": told, "retry_s": RETRY_S}})
            await asyncio.sleep(RETRY_S)
