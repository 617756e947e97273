"""YAML as configuration needs it: the core schema of YAML 1.2, bounded, and with the line in every error.

PyYAML's parser is used for events only. Its constructor would keep the last of two equal keys, take `on` for true and
`12:30` for 750, and expand aliases without limit; the values are built here instead, without recursion.

Invariant: the result holds only dict, list, str, int, float, bool and None, as a tree (no value is shared), of at
most NODES_MAX nodes and DEPTH_MAX levels; all keys are strings and occur once.
"""

import copy
import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from proxy.resources.wording import ResourceError

YAML_BYTES_MAX: Final = 1024 * 1024
NODES_MAX: Final = 100_000
DEPTH_MAX: Final = 64
DOCUMENTS_MAX: Final = 1_000

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STRING_TAG: Final = "tag:yaml.org,2002:str"
_INT: Final = re.compile(r"[-+]?[0-9]{1,19}")
_OCTAL: Final = re.compile(r"0o[0-7]{1,21}")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]{1,3})?|[-+]?[0-9]+[eE][-+]?[0-9]{1,3}"
)
_CONSTANTS: Final[dict[str, Any]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_NO_KEY: Final = object()


def load_yaml(text: str, source: str) -> list[dict[str, Any]]:
    """The documents of a YAML stream, empty ones left out; a list of mappings is a document for each. `source` names
    the stream in errors.

    Raises ResourceError: `<source>: line 3, column 5: ...`.
    """
    if len(text) > YAML_BYTES_MAX or len(text.encode(errors="replace")) > YAML_BYTES_MAX:
        raise ResourceError([f"{source}: is larger than {YAML_BYTES_MAX // 1024} KiB"])
    builder = _Builder(source)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ResourceError([f"{source}: {where}not valid YAML: {error.problem or error.context}"]) from error
    except (yaml.YAMLError, UnicodeError) as error:
        reason = str(error).splitlines()[0]
        raise ResourceError([f"{source}: not valid YAML: {reason}"]) from error
    return builder.documents


@dataclass(slots=True)
class _Open:
    """A collection under construction. `key` is the mapping key whose value comes next."""

    value: Any
    anchor: str | None
    nodes_before: int
    height: int = 1  # levels of collections in it, itself included
    key: Any = _NO_KEY


class _Builder:
    """Builds values from parser events."""

    def __init__(self, source: str) -> None:
        self.documents: list[dict[str, Any]] = []
        self._source = source
        self._seen = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int, int]] = {}
        self._nodes = 0

    def take(self, event: Event) -> None:
        match event:
            case DocumentStartEvent():
                self._seen += 1
                self._anchors.clear()
                if self._seen > DOCUMENTS_MAX:
                    self._refuse(event, f"more than {DOCUMENTS_MAX} documents")
            case ScalarEvent():
                self._count(event, 1)
                value = self._scalar(event)
                self._anchor(event.anchor, value, nodes=1, height=0)
                self._put(event, value, height=0)
            case AliasEvent():
                self._alias(event)
            case MappingStartEvent() | SequenceStartEvent():
                self._count(event, 1)
                if len(self._open) >= DEPTH_MAX:
                    self._refuse(event, f"nested more than {DEPTH_MAX} deep")
                if event.tag is not None and not event.implicit:
                    self._refuse(event, f"the tag {event.tag} is not supported")
                empty: Any = {} if isinstance(event, MappingStartEvent) else []
                self._open.append(_Open(empty, event.anchor, self._nodes - 1))
            case MappingEndEvent() | SequenceEndEvent():
                done = self._open.pop()
                self._anchor(done.anchor, done.value, self._nodes - done.nodes_before, done.height)
                self._put(event, done.value, done.height)
            case _:
                pass  # stream and document ends carry nothing

    def _refuse(self, event: Event, what: str) -> NoReturn:
        mark = event.start_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ResourceError([f"{self._source}: {where}{what}"])

    def _count(self, event: Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            self._refuse(event, f"more than {NODES_MAX} values (aliases counted as what they stand for)")

    def _anchor(self, name: str | None, value: Any, nodes: int, height: int) -> None:
        if name is not None:
            self._anchors[name] = (value, nodes, height)

    def _alias(self, event: AliasEvent) -> None:
        known = self._anchors.get(event.anchor or "")
        if known is None:
            self._refuse(event, f"the alias *{event.anchor} stands for nothing complete")
        value, nodes, height = known
        self._count(event, nodes)
        if len(self._open) + height > DEPTH_MAX:
            self._refuse(event, f"nested more than {DEPTH_MAX} deep")
        self._put(event, copy.deepcopy(value), height)

    def _scalar(self, event: ScalarEvent) -> Any:
        if event.tag is not None and event.tag not in {_STRING_TAG, "!"}:
            self._refuse(event, f"the tag {event.tag} is not supported")
        plain = event.implicit[0] and event.tag is None
        return _plain_scalar(event.value) if plain else event.value

    def _put(self, event: Event, value: Any, height: int) -> None:
        if not self._open:
            self._document(event, value)
            return
        parent = self._open[-1]
        parent.height = max(parent.height, height + 1)
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is _NO_KEY:
            if not isinstance(value, str):
                self._refuse(event, f"a key must be a string, not {value!r:.40} (quote it)")
            if value in parent.value:
                self._refuse(event, f"the key {value!r:.80} occurs twice")
            parent.key = value
        else:
            parent.value[parent.key] = value
            parent.key = _NO_KEY

    def _document(self, event: Event, value: Any) -> None:
        if value is None:
            return
        documents = value if isinstance(value, list) else [value]  # a list as `get -o json` prints it
        if not all(isinstance(each, dict) for each in documents):
            raise ResourceError(
                [f"{self._source}: document {self._seen}: must be a mapping, or a list of them"]
            )
        if len(self.documents) + len(documents) > DOCUMENTS_MAX:
            self._refuse(event, f"more than {DOCUMENTS_MAX} documents")
        self.documents += documents


def _plain_scalar(text: str) -> Any:
    """The core schema of YAML 1.2 (section 10.3.2), without infinities."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
