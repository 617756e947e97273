"""What happened, in order: a digest of all of it, and on demand a line for each event.

The digest is BLAKE2b over a compact form of every input a node took, every output it gave and every fault: when, where
and what, with the bytes of datagrams and frames. Two runs of one seed have one digest, in whatever process, or
something in them looked at more than the seed (quinn once found a hidden source of entropy so).

A line: seconds since the start, sequence, host, what, detail; in columns, so that `grep n3` and the eye both work.

Invariant: taking it changes nothing; without it a world runs the same story, faster.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from struct import Struct
from typing import Any, Final

from gossip.events import Address
from gossip.member import Member
from peer.messages import (
    CloseStream,
    CredentialRenewed,
    DatagramReceived,
    Depart,
    Departed,
    Evicted,
    Joined,
    JoinSeeds,
    Lagged,
    MemberMoved,
    MetaChanged,
    Note,
    OpenStream,
    Persist,
    Persisted,
    PersistFailed,
    SendDatagram,
    SendFrame,
    StateChanged,
    StreamClosed,
    StreamFrame,
    StreamOpened,
    Synced,
    Tick,
    Write,
    Written,
)
from simulations.host import Host
from trust.identity import format_id

_STAMP: Final = Struct(">dIB")
_FAULT: Final = 255
_FLUSH_BYTES: Final = 1 << 16

Names = Callable[[bytes], str]


class Trace:
    """Takes every event of one world. `line` is called with each line, if there is one; `name_of` and `at` name nodes
    and addresses for people."""

    def __init__(
        self,
        start: float,
        *,
        name_of: Names = format_id,
        at: Callable[[Address], str] = lambda address: f"{address[0]}:{address[1]}",
        line: Callable[[str], None] | None = None,
    ) -> None:
        self._start = start
        self._name_of, self._at, self._line = name_of, at, line
        self._hash = blake2b(digest_size=16)
        self._pending = bytearray()
        self.events = 0

    def event(self, now: float, host: Host, event: object) -> None:
        """An input that the host's node takes, or an output it gave."""
        self.events += 1
        code, compact, what, detail = _FORMS[type(event)]
        pending = self._pending
        pending += _STAMP.pack(now, host.index, code)
        pending += compact(event)
        if len(pending) > _FLUSH_BYTES:
            self._flush()
        if self._line is not None:
            text = detail(event, self._name_of, self._at)
            self._line(
                f"{now - self._start:13.6f} {self.events:>9} {host.name:<8} {what:<14} {text}".rstrip()
            )

    def fault(self, now: float, fault: object) -> None:
        """Something done to the world."""
        self.events += 1
        text = repr(fault)
        self._pending += _STAMP.pack(now, 0, _FAULT)
        self._pending += text.encode()
        if self._line is not None:
            self._line(f"{now - self._start:13.6f} {self.events:>9} {'*':<8} {'FAULT':<14} {text}")

    def hexdigest(self) -> str:
        """Of everything so far."""
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        self._hash.update(self._pending)
        self._pending.clear()


# ---------------------------------------------------------------------- the compact forms


def _nothing(_event: Any) -> bytes:
    return b""


def _repr(event: Any) -> bytes:
    return repr(event).encode()


def _persist(event: Persist) -> bytes:
    rows = [(r.writer, r.seq) for r in event.put], [(r.writer, r.seq) for r in event.delete]
    return repr((event.ticket, rows, list(event.heads.items()), list(event.introductions))).encode()


def _moved(event: MemberMoved) -> bytes:
    member = event.member
    return repr((member.id, member.state, member.rank, member.address, event.previous)).encode()


def _written(event: Written) -> bytes:
    return repr((event.request, [record.seq for record in event.records], event.error)).encode()


def _write(event: Write) -> bytes:
    return repr((event.request, [(draft.kind, draft.key, draft.payload) for draft in event.drafts])).encode()


# ---------------------------------------------------------------------- the words for people


def _blank(_event: Any, _name: Names, _at: Callable[[Address], str]) -> str:
    return ""


def _member(member: Member) -> str:
    return f"{member.state.value} boot {member.boot} incarnation {member.incarnation}"


def _way(event: StreamOpened) -> str:
    return "from" if event.inbound else "to"


def _sizes(event: Persist) -> str:
    return f"{len(event.put)} put, {len(event.delete)} deleted, {len(event.introductions)} introduced"


_Detail = Callable[[Any, Names, Callable[[Address], str]], str]
_Form = tuple[int, Callable[[Any], bytes], str, _Detail]

_TABLE: Final[tuple[tuple[type, Callable[[Any], bytes], str, _Detail], ...]] = (
    (Tick, _nothing, "tick", _blank),
    (DatagramReceived, lambda e: e.data, "datagram", lambda e, _, at: f"from {at(e.source)}, {len(e.data)} B"),
    (SendDatagram, lambda e: e.data, "send", lambda e, _, at: f"to {at(e.address)}, {len(e.data)} B"),
    (OpenStream, _repr, "open", lambda e, _, at: f"stream {e.stream} to {at(e.address)}"),
    (StreamOpened, _repr, "opened", lambda e, name, _: f"stream {e.stream} {_way(e)} {name(e.node)}"),
    (SendFrame, lambda e: e.data, "frame out", lambda e, *_: f"stream {e.stream}, {len(e.data)} B"),
    (StreamFrame, lambda e: e.data, "frame in", lambda e, *_: f"stream {e.stream}, {len(e.data)} B"),
    (CloseStream, _repr, "close", lambda e, *_: f"stream {e.stream} {e.reason}"),
    (StreamClosed, _repr, "closed", lambda e, *_: f"stream {e.stream} {e.reason}"),
    (Persist, _persist, "persist", lambda e, *_: f"ticket {e.ticket}: {_sizes(e)}"),
    (Persisted, _repr, "persisted", lambda e, *_: f"ticket {e.ticket}"),
    (PersistFailed, _repr, "not persisted", lambda e, *_: f"ticket {e.ticket}: {e.reason}"),
    (Write, _write, "write", lambda e, *_: f"request {e.request}: " + ", ".join(f"{d.kind} {d.key}" for d in e.drafts)),
    (Written, _written, "written", lambda e, *_: f"request {e.request}: {e.error or [r.seq for r in e.records]}"),
    (JoinSeeds, _repr, "join", lambda e, _, at: " ".join(map(at, e.seeds))),
    (Joined, _repr, "joined", lambda e, _, at: f"through {' '.join(map(at, e.contacted)) or 'nobody'}"),
    (Depart, _nothing, "depart", _blank),
    (Departed, _nothing, "departed", _blank),
    (Lagged, _repr, "lagged", lambda e, *_: f"{e.lag_s:.3f} s"),
    (CredentialRenewed, lambda e: e.credential.encode(), "renewed", _blank),
    (MetaChanged, lambda e: repr(sorted(e.meta.items())).encode(), "meta", lambda e, *_: str(dict(e.meta))),
    (StateChanged, _nothing, "state", _blank),
    (Synced, _nothing, "synced", _blank),
    (MemberMoved, _moved, "member", lambda e, name, _: f"{name(e.member.id)} {_member(e.member)}"),
    (Evicted, lambda e: e.node, "evicted", lambda e, name, _: name(e.node)),
    (Note, _repr, "note", lambda e, *_: f"{e.event} " + " ".join(f"{key}={value}" for key, value in e.fields.items())),
)  # fmt: skip

_FORMS: Final[Mapping[type, _Form]] = {
    kind: (code, compact, what, detail) for code, (kind, compact, what, detail) in enumerate(_TABLE)
}
