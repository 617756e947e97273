"""Policies of people: documents signed with a key of their author's own, which any member may publish for them.

A document is signed by an annotation, `gossamer.dev/author: <public key>.<stamp>.<signature>`. The signature covers the
mesh (its root's key), the resource's key, the stamp (Unix ms, the author's clock) and the document without the
annotation, under a label of its own. Nothing else is needed, so a document can be signed anywhere and handed on.

A record that carries one counts as the *author's* record (`as_written`): the author is its writer, the stamp its number
and its time, the member that carried it is nobody. So rights are judged for the author's key; of two documents of
one author under one name the later stamp holds, whoever carries which, and a copy that somebody publishes again says
nothing new; and it replaces only what is stamped before it, so that an old document replaces nothing newer. Two
documents with one stamp contradict each other and neither counts. What a carrier can do is what a courier can: its
own journal is its own, and it may take out of it what it put there. Publish at two members against that.

Invariant: what `as_written` returns as an author's, the author has signed for this mesh.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from crdt.clock import hlc_at, hlc_ms
from crdt.codec import pack
from crdt.record import SEQ_MAX, Record
from peer.records import POLICY, PayloadError, decode_policy, encode_policy, policy_key
from trust.identity import KEY_BYTES, SIGNATURE_BYTES, node_id

ANNOTATION: Final = "gossamer.dev/author"
STAMP_AHEAD_MS_MAX: Final = 5_000  # of the record that carries it; a bound that all members share

_LABEL: Final = b"gossamer/authored/1\0"
_MARK: Final = ANNOTATION.encode()
_CLAIM: Final = re.compile(r"([0-9a-f]{64})\.([1-9][0-9]{0,14})\.([A-Za-z0-9_-]{86})")

Verify = Callable[[bytes, bytes, bytes], bool]  # (public key, message, signature)


@dataclass(frozen=True, slots=True)
class Claim:
    """What an annotation says: whose document it is, and since when."""

    key: bytes
    stamp_ms: int
    signature: bytes

    @property
    def text(self) -> str:
        signature = base64.urlsafe_b64encode(self.signature).decode().rstrip("=")
        return f"{self.key.hex()}.{self.stamp_ms}.{signature}"


def read_claim(text: object) -> Claim:
    """Inverse of `Claim.text`. Raises PayloadError."""
    match = _CLAIM.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise PayloadError(f"annotation {ANNOTATION} is not <key>.<stamp>.<signature>")
    key, stamp, signature = match.groups()
    try:
        claim = Claim(bytes.fromhex(key), int(stamp), base64.urlsafe_b64decode(signature + "=="))
    except binascii.Error as error:
        raise PayloadError(f"annotation {ANNOTATION} is damaged") from error
    if claim.text != text or claim.stamp_ms > SEQ_MAX:
        raise PayloadError(f"annotation {ANNOTATION} is damaged")
    assert (len(claim.key), len(claim.signature)) == (KEY_BYTES, SIGNATURE_BYTES)
    return claim


def sign(
    document: Mapping[str, Any], *, root: bytes, key: bytes, stamp_ms: int, signer: Callable[[bytes], bytes]
) -> dict[str, Any]:
    """The document with its author's annotation, in place of one that it may have. Raises PayloadError."""
    bare = without_claim(document)
    claim = Claim(key, stamp_ms, signer(signing_bytes(bare, root, stamp_ms)))
    metadata = dict(bare["metadata"])
    metadata["annotations"] = dict(metadata.get("annotations", {})) | {ANNOTATION: claim.text}
    return bare | {"metadata": metadata}


def signing_bytes(bare: Mapping[str, Any], root: bytes, stamp_ms: int) -> bytes:
    """What the author signs. `bare` has no annotation. Raises PayloadError."""
    return _LABEL + pack([root, _key_of(bare), stamp_ms, encode_policy(bare)])


def _key_of(document: Mapping[str, Any]) -> str:
    metadata = document["metadata"]
    return policy_key(str(document["kind"]), str(metadata.get("namespace")), str(metadata.get("name")))


def without_claim(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as its author wrote it."""
    metadata = document.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if (
        not isinstance(metadata, Mapping)
        or not isinstance(annotations, Mapping)
        or ANNOTATION not in annotations
    ):
        return dict(document)
    kept = {name: value for name, value in annotations.items() if name != ANNOTATION}
    bare = {name: value for name, value in metadata.items() if name != "annotations"}
    return dict(document) | {"metadata": bare | ({"annotations": kept} if kept else {})}


def author_key(document: Mapping[str, Any] | None, writer: bytes) -> str:
    """The public key, in hex, of the person who is the writer of this document (`as_written`); "" if a node is."""
    match document:
        case {"metadata": {"annotations": {**annotations}}}:
            try:
                key = read_claim(annotations.get(ANNOTATION)).key
            except PayloadError:
                return ""
            return key.hex() if node_id(key) == writer else ""
        case _:
            return ""


def claim_of(document: Mapping[str, Any]) -> Claim | None:
    """What its annotation says, true or not; None if it has none. Raises PayloadError."""
    match document:
        case {"metadata": {"annotations": {**annotations}}} if ANNOTATION in annotations:
            return read_claim(annotations[ANNOTATION])
        case _:
            return None


def check_claim(claim: Claim, document: Mapping[str, Any], root: bytes, verify: Verify) -> None:
    """Whether its author signed this document for the mesh of that root. Raises PayloadError."""
    if not verify(claim.key, signing_bytes(without_claim(document), root, claim.stamp_ms), claim.signature):
        raise PayloadError(
            "the author's signature does not match the document: sign it again, or take out the annotation "
            f"{ANNOTATION}"
        )


def is_authored(record: Record) -> bool:
    """Whether it may carry a signed document: a glance at the bytes."""
    return record.kind == POLICY and _MARK in record.payload


def as_written(record: Record, root: bytes, verify: Verify) -> Record:
    """The record as its author's if it carries a signed document, else the record itself. Raises PayloadError for a
    claim that does not hold."""
    if not is_authored(record):
        return record
    document = decode_policy(record.payload)
    claim = claim_of(document)
    if claim is None:
        return record  # the words stand somewhere else
    if _key_of(document) != record.key:
        raise PayloadError("the author signed it under another name")
    check_claim(claim, document, root, verify)
    if claim.stamp_ms > hlc_ms(record.hlc) + STAMP_AHEAD_MS_MAX:
        raise PayloadError("the author's clock is ahead: the document is signed in the future")
    return replace(record, writer=node_id(claim.key), seq=claim.stamp_ms, hlc=hlc_at(claim.stamp_ms))
