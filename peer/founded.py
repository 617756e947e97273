"""From a founding ceremony to a membership: the last steps of a founding (`peer/founding.py`).

The new group signs the root's certificate once, for the first of its signers that asks, and each founder's credential
for the founder itself. Then a member stays for the others, who need its signatures.

Invariant: credential and certificate are durable before this peer says that it is a member.
"""

import asyncio
from dataclasses import replace
from typing import Final

from peer import founders
from peer.custody import Custody
from peer.enroll import Membership
from peer.firstsigning import FirstSignatures
from peer.founder import TELL_S, Founder, FoundingError
from peer.io.keys import KeyFile, KeyFileError, Keys, erase_private
from peer.sitting import forget_memory
from trust.authority import read_root
from trust.credential import decode_credential, verify_credential
from trust.epoch import EpochRecord
from trust.errors import TrustError

ROOT_RANK_S: Final = 1.5  # how much longer each next signer waits for somebody else's root certificate
PART_S: Final = 2.0  # how long a member stays for founders that are late
ALONE_S: Final = 15.0  # how long it stays where it hears of no other


async def sign(founder: Founder, record: EpochRecord) -> Membership | None:
    """Certificate and credential, signed by the group; None if a running mesh has let this peer in meanwhile."""
    custody = founder.custody
    assert custody is not None, "the ceremony is over"
    signing = _open_signing(founder, custody, record)
    founder.root = founder.keys.read(KeyFile.ROOT_CERTIFICATE)
    turn_at = founder.clock() + record.value.ids.index(founder.identity.id) * ROOT_RANK_S
    try:
        while founder.root is None and founder.let_in is None:
            founder.read_letters()
            if founder.root is None and founder.clock() >= turn_at:
                founder.root = await signing.root_certificate()
            await founder.others.pause(TELL_S)
        if founder.root is None:
            return None
        founder.keys.write(KeyFile.ROOT_CERTIFICATE, founder.root)
        for node in record.value.ids:
            founder.others.send(node, founders.ROOT + founder.root)
        while (encoded := await signing.credential()) is None:
            if founder.let_in is not None:
                return None
            await founder.others.pause(TELL_S)
            founder.read_letters()
    except TrustError as error:
        raise FoundingError(f"this peer cannot be a founder: {error}") from error
    founder.keys.write(KeyFile.CREDENTIAL, encoded)
    member = own_membership(founder)
    assert member is not None, "both are stored"
    return member


def _open_signing(founder: Founder, custody: Custody, record: EpochRecord) -> FirstSignatures:
    founder.signing = FirstSignatures(
        custody=custody, record=record, identity=founder.identity, name=founder.site.name,
        trust_domain=founder.site.trust_domain, dial=lambda node: founder.others.dial(node, founders.SIGN),
        member_of=founder.others.member_of, now=founder.now,
    )  # fmt: skip
    return founder.signing


def own_membership(founder: Founder) -> Membership | None:
    """What an earlier life came to, or this one."""
    root, encoded = founder.keys.read(KeyFile.ROOT_CERTIFICATE), founder.keys.read(KeyFile.CREDENTIAL)
    if root is None or encoded is None:
        return None
    try:
        public = read_root(root, founder.site.trust_domain)
        credential = decode_credential(encoded)
        verify_credential(credential, public, founder.site.trust_domain, None)
    except TrustError as error:
        raise FoundingError(f"{founder.keys.path(KeyFile.CREDENTIAL)}: {error}") from error
    return Membership(root_certificate=root, trust_domain=founder.site.trust_domain, credential=credential)


async def part(founder: Founder, membership: Membership) -> Membership:
    """Stay until all founders are members, or enough of them to let the others in, and PART_S more."""
    custody = founder.custody
    if custody is None:
        custody = founder.custody = Custody.load(
            founder.keys, membership.roots, identity=founder.identity,
            trust_domain=founder.site.trust_domain,
        )  # fmt: skip
        if custody.record is not None and custody.record.epoch == 0 and custody.shares:
            founder.root = membership.root_certificate
            _open_signing(founder, custody, custody.record)
    record = custody.record
    others = set() if record is None else set(record.value.ids) - {founder.identity.id}
    since = founder.clock()
    while record is not None and founder.let_in is None:
        for node in others:
            founder.others.send(node, founders.ROOT + membership.root_certificate)
            founder.others.send(node, founders.MEMBER)
        founder.read_letters()
        if founder.root is not None and founder.root != membership.root_certificate:
            founder.keys.write(KeyFile.ROOT_CERTIFICATE, founder.root)
            membership = replace(membership, root_certificate=founder.root, line=None)
            continue  # the others are told before this one goes
        members = len(founder.others.members & others) + 1
        stayed_s = founder.clock() - since
        enough = members >= record.group.threshold and stayed_s >= PART_S
        if members > len(others) or enough or (stayed_s >= ALONE_S and not _heard_lately(founder)):
            break
        await founder.others.pause(TELL_S)
    await asyncio.sleep(TELL_S / 3)  # the last word is on its way
    forget(founder.keys, founded=True)
    return membership


def _heard_lately(founder: Founder) -> bool:
    return founder.clock() - founder.others.heard_at < ALONE_S


def forget(keys: Keys, *, founded: bool) -> None:
    """What was only there for the founding, once this peer is a member. That it founded is forgotten when it has taken
    part in the mesh (`peer/entering.py`): until then there is no state of it that others could hold. Raises
    KeyFileError."""
    if failed := forget_memory(keys, 0):
        raise KeyFileError(failed)
    erase_private(keys.path(KeyFile.FOUNDERS))
    if not founded:
        erase_private(keys.path(KeyFile.FOUNDER_SINCE))
