"""Capability, gossamer.dev/v1: who may publish what, and who may pass that on.

    spec:
      subjects: [{node: <id>}]        node ids as `gossamer members -o json` shows them; "*" is every member
                [{author: <key>}]     or the key of a person, as `gossamer author create` prints it
      namespaces: [shop]              or "*": all there are and will be
      kinds: [HTTPRoute]              or "*": all kinds but Capability, which only who may delegate writes
      delegate: false                 may the subjects grant (parts of) this to others?

The ids are hashes of keys, so nobody can be somebody else's id; names of nodes are labels and are not taken here.
What it means, and what it cannot do, is said in `peer/capabilities.py`. All live in the root namespace.
"""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, StrictStr, model_validator

from proxy.resources.fields import LABEL, Flag, Spec
from trust.errors import IdentityError
from trust.identity import parse_id

EVERY: Final = "*"
CAPABILITY: Final = "Capability"
SUBJECTS_MAX: Final = 256
NAMESPACES_MAX: Final = 64
KINDS_MAX: Final = 16

_KEY: Final = re.compile(r"[0-9a-f]{64}")
_KIND: Final = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")


def _namespace(text: str) -> str:
    if text != EVERY and not LABEL.fullmatch(text):
        raise ValueError(f'must be a namespace (a DNS label) or "*", not {text!r:.80}')
    return text


def _kind(text: str) -> str:
    from proxy.resources.resource import KINDS  # which has this schema in it

    if text == CAPABILITY:
        raise ValueError("Capability is not granted as a kind: who may delegate writes them (delegate: true)")
    for kind in KINDS:
        if text != kind and text.lower() == kind.lower():
            raise ValueError(f"must be written {kind}, not {text!r:.80}")
    if text != EVERY and not _KIND.fullmatch(text):
        raise ValueError(f'must be a kind of resource, such as HTTPRoute, or "*", not {text!r:.80}')
    return text


def _node(text: str) -> str:
    if text != EVERY:
        try:
            parse_id(text)
        except IdentityError as error:
            raise ValueError(f'{error}, as `gossamer members -o json` shows, or "*"') from None
    return text


def _author(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError(
            f"must be an author's key, 64 characters 0-9 a-f as `author create` prints it, not {text!r:.80}"
        )
    return text


class Subject(Spec):
    """Who is granted something. Exactly one of these is given."""

    node: Annotated[StrictStr, AfterValidator(_node)] | None = None
    author: Annotated[StrictStr, AfterValidator(_author)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.node is None) == (self.author is None):
            raise ValueError("must name either a node or an author")
        return self


class CapabilitySpec(Spec):
    """No subjects: nobody but who governs may write there."""

    subjects: Annotated[tuple[Subject, ...], Field(max_length=SUBJECTS_MAX)]
    namespaces: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(_namespace)], ...],
        Field(min_length=1, max_length=NAMESPACES_MAX),
    ]
    kinds: Annotated[
        tuple[Annotated[StrictStr, AfterValidator(_kind)], ...], Field(min_length=1, max_length=KINDS_MAX)
    ]
    delegate: Flag = False

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.delegate and any(each.node == EVERY for each in self.subjects):
            raise ValueError('delegate: must be false where a subject is "*": name who may grant rights')
        return self
