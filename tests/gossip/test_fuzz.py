"""Bytes nobody should have sent: to every decoder of the package, and to a whole engine.

Three kinds: arbitrary bytes, arbitrary MessagePack, and valid bytes changed somewhere (in the bytes, or in one value
of the structure). A decoder returns or raises its one error; an engine returns outputs and changes no member, whether
the bytes come from a stranger, from a stream peer or sealed from a member that is hostile. Values at the very ends of
their ranges, signed by who may sign them, are no exception.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossip.codec import UINT64_MAX, pack, unpack_array
from gossip.config import DATAGRAM_BYTES_MAX, lan
from gossip.engine import Engine
from gossip.errors import MalformedError
from gossip.events import Datagram, Join, Leave, MembersReceived, Output, Rejected, SetMeta, Tick
from gossip.member import Member, State
from gossip.message import Body, Gossip, Nack, PingRequest, decode_body, encode_body
from gossip.statement import Alive, Dead, Suspect, decode_statement
from gossip.sync import CHUNK_BYTES_MAX, decode_members
from gossip.wire import SENDER_BYTES, parse, seal
from tests.gossip.company import OWN, alive_of, chunk, dead_of, left_of
from tests.gossip.world import START, Speaker, ack, engine_of, identity_of, members_payload, ping, suspicion

FROM = ("10.6.6.6", 666)
SPEAKER = Speaker("a", address=("10.9.0.2", 7946))


# ---------------------------------------------------------------- valid things, and what can be done to them
STATEMENTS = (
    alive_of("s", (1, 1), address=("10.9.0.1", 7946)),
    alive_of("s", (1, 1), address=("2001:db8::1", 65535), meta={}),
    alive_of("s", (1, 1)).slim(),
    suspicion("a", "s"),
    dead_of("s", ""),
    dead_of("s", "abc"),
    left_of("s", (1, 0)),
)
BODIES = tuple(
    Body(
        message=message,
        known_boot=1,
        updates=(STATEMENTS[2].encode(), STATEMENTS[3].encode()),
        payloads=(b"p",),
    )
    for message in (
        ping(),
        ack(UINT64_MAX >> 32),
        PingRequest(
            sequence=0,
            target=identity_of("s").id,
            fingerprint=bytes(16),
            settled=False,
            members=bytes(8),
            members_settled=False,
        ),
        Nack(sequence=7),
        Gossip(),
    )
)
DATAGRAMS = (
    SPEAKER.say(OWN, ping(), updates=[suspicion("a", "s").encode()]),
    SPEAKER.say(OWN, Gossip(), introduction=b""),
)

DECODERS: dict[str, tuple[Callable[[bytes], object], tuple[bytes, ...]]] = {
    "statement": (decode_statement, tuple(statement.encode() for statement in STATEMENTS)),
    "body": (decode_body, tuple(encode_body(body) for body in BODIES)),
    "datagram": (lambda data: parse(data, lan().versions), DATAGRAMS),
    "members": (decode_members, (chunk(), chunk(*STATEMENTS))),
    "array": (lambda data: unpack_array(data, size_max=4096), (pack([1, b"x", "y", True, [2, [3]]]),)),
}

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.sampled_from([0, 1, 2, 3, 4, 5, 2**32, UINT64_MAX]),
        st.floats(),
        st.text(max_size=20),
        st.binary(max_size=80),
        st.sampled_from([bytes(16), bytes(64), identity_of("s").id, "", b""]),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=12)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=12), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=24,
)


def packed(value: object) -> bytes:
    return msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass")


@st.composite
def changed_bytes(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """A valid one with a few bytes flipped, cut, doubled or put in."""
    original = draw(st.sampled_from(originals))
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "cut", "double", "insert", "end"])):
            case "flip" if data:
                data[at] ^= draw(st.integers(1, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "double":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=16))
            case _:
                del data[at:]
    return bytes(data)


def places(value: object, path: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """The paths of all values in nested arrays."""
    found = [path]
    if isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, (*path, index))
    return found


@st.composite
def changed_value(draw: st.DrawFn, originals: tuple[bytes, ...]) -> bytes:
    """A valid one with one value of its structure replaced, left out or doubled."""
    tree = msgpack.unpackb(draw(st.sampled_from(originals)), raw=False)
    path = draw(st.sampled_from(places(tree)))
    if not path:
        return packed(draw(values))
    parent = tree
    for index in path[:-1]:
        parent = parent[index]
    match draw(st.sampled_from(["replace", "replace", "remove", "double", "nudge"])):
        case "remove":
            del parent[path[-1]]
        case "double":
            parent.insert(path[-1], parent[path[-1]])
        case "nudge" if isinstance(parent[path[-1]], int):
            parent[path[-1]] = min(UINT64_MAX, parent[path[-1]] + draw(st.integers(1, 3)))
        case _:
            parent[path[-1]] = draw(values)
    return packed(tree)


def mangled(originals: tuple[bytes, ...], *, structured: bool = True) -> st.SearchStrategy[bytes]:
    kinds = [st.binary(max_size=1500), changed_bytes(originals)]
    if structured:
        kinds += [values.map(packed), changed_value(originals)]
    return st.one_of(kinds)


# ---------------------------------------------------------------- decoders
@pytest.mark.parametrize("name", DECODERS)
def test_every_decoder_takes_what_was_encoded(name: str) -> None:
    decode, originals = DECODERS[name]
    for original in originals:
        decode(original)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_whatever_the_bytes_a_decoder_returns_or_says_malformed(name: str, data: st.DataObject) -> None:
    decode, originals = DECODERS[name]
    try:
        decode(data.draw(mangled(originals, structured=name != "datagram")))
    except MalformedError:
        pass  # the one error there is


@given(data=st.data())
def test_a_statement_that_decodes_is_what_it_encodes_to(data: st.DataObject) -> None:
    try:
        statement = decode_statement(data.draw(mangled(DECODERS["statement"][1])))
    except MalformedError:
        return
    assert decode_statement(statement.encode()) == statement


@given(data=st.data())
def test_a_body_that_decodes_is_what_it_encodes_to(data: st.DataObject) -> None:
    try:
        body = decode_body(data.draw(mangled(DECODERS["body"][1])))
    except MalformedError:
        return
    assert decode_body(encode_body(body)) == body


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\x91" * 1300,
        b"\x91" * 60_000,
        b"\x92\x01" + b"\xdc\xff\xff" + b"\x90" * 65_535,
        b"\xd7\xff" + bytes(8),
        b"\xd6\xff" + b"\xff" * 4,
        b"\xa1\xff",
        b"",
    ],
)
def test_claimed_sizes_and_depths_are_malformed_before_they_cost_anything(name: str, bomb: bytes) -> None:
    decode, _ = DECODERS[name]
    with pytest.raises(MalformedError):
        decode(bomb)


# ---------------------------------------------------------------- a whole engine
def witness_engine() -> Engine:
    """An engine for which each of STATEMENTS is old or known: `s` is at (1, 1), as are its accusations at (1, 0)."""
    engine = engine_of(OWN, address=("10.0.0.1", 7946))
    alives = [alive_of(name, address=(f"10.9.0.{index + 2}", 7946)) for index, name in enumerate("abc")]
    engine.step(START, MembersReceived(node=None, data=chunk(STATEMENTS[0], *alives)))
    assert {member.name for member in engine.members()} == {OWN, "s", "a", "b", "c"}
    return engine


def others(engine: Engine) -> tuple[Member, ...]:
    """Everything an engine holds to be so of others; and of itself what nobody else can change."""
    own = engine.members()[0]
    return (*engine.members()[1:], replace(own, incarnation=0))


def unharmed(engine: Engine, before: tuple[Member, ...], outputs: list[Output]) -> None:
    assert others(engine) == before
    assert isinstance(outputs, list)
    assert engine.deadline is not None
    assert [
        output
        for output in engine.step(START, SetMeta(meta={"version": "1"}))
        if isinstance(output, Rejected)
    ] == []


@given(data=st.binary(max_size=1600))
def test_arbitrary_datagrams_are_rejected(data: bytes) -> None:
    engine = witness_engine()
    before = others(engine)
    outputs = engine.step(START, Datagram(source=FROM, data=data))
    assert [type(output) for output in outputs] == [Rejected]
    unharmed(engine, before, outputs)


@given(data=changed_bytes(DATAGRAMS))
def test_changed_datagrams_are_rejected(data: bytes) -> None:
    engine = witness_engine()
    before = others(engine)
    outputs = engine.step(START, Datagram(source=FROM, data=data))
    if data not in DATAGRAMS:
        assert [type(output) for output in outputs] == [Rejected]
    unharmed(engine, before, outputs)


@given(
    sender=st.binary(min_size=8, max_size=8), boot=st.integers(0, UINT64_MAX), rest=st.binary(max_size=300)
)
def test_datagrams_in_the_name_of_strangers_and_of_members_are_rejected(
    sender: bytes, boot: int, rest: bytes
) -> None:
    engine = witness_engine()
    before = others(engine)
    for prefix in (sender, identity_of("a").id[:SENDER_BYTES], engine.id[:SENDER_BYTES]):
        header = b"\x01" + prefix + boot.to_bytes(8, "big") + rest[:8].ljust(8, b"\0")
        outputs = engine.step(START, Datagram(source=FROM, data=header + rest))
        assert [type(output) for output in outputs] == [Rejected]
        unharmed(engine, before, outputs)


def sealed(plain: bytes) -> Datagram:
    """Anything at all, sealed by a member as it should be."""
    receiver = identity_of(OWN)
    SPEAKER.counter += 1
    data = seal(
        SPEAKER.keys.sending(receiver.id, receiver.agreement_key, SPEAKER.boot),
        version=1,
        sender=SPEAKER.identity.id,
        boot=SPEAKER.boot,
        counter=SPEAKER.counter,
        introduction=b"",
        body=plain,
    )
    return Datagram(source=SPEAKER.address, data=data)


@given(plain=mangled(DECODERS["body"][1]))
def test_a_hostile_member_can_seal_anything_and_change_nothing(plain: bytes) -> None:
    engine = witness_engine()
    before = others(engine)
    unharmed(engine, before, engine.step(START, sealed(plain[: DATAGRAM_BYTES_MAX - 60])))


@given(
    updates=st.lists(mangled(DECODERS["statement"][1]), max_size=5),
    payloads=st.lists(st.binary(max_size=50), max_size=3),
)
def test_a_hostile_member_can_tell_mangled_statements_and_change_nothing(
    updates: list[bytes], payloads: list[bytes]
) -> None:
    engine = witness_engine()
    before = others(engine)
    body = Body(
        message=Gossip(),
        known_boot=1,
        updates=tuple(update[:200] for update in updates),
        payloads=tuple(payloads),
    )
    unharmed(engine, before, engine.step(START, sealed(encode_body(body))))


@given(introduction=mangled((STATEMENTS[0].encode(), SPEAKER.alive().encode())))
def test_a_mangled_introduction_brings_nobody_in(introduction: bytes) -> None:
    engine = witness_engine()
    before = others(engine)
    stranger = Speaker("stranger")
    data = stranger.say(OWN, ping(), introduction=introduction[:900] or b"\0")
    outputs = engine.step(START, Datagram(source=FROM, data=data))
    assert [type(output) for output in outputs] == [Rejected]
    unharmed(engine, before, outputs)


@given(data=mangled(DECODERS["members"][1]))
def test_whatever_a_stream_peer_sends_changes_nothing_it_cannot_prove(data: bytes) -> None:
    engine = witness_engine()
    before = others(engine)
    for node in (None, identity_of("a").id):
        unharmed(engine, before, engine.step(START, MembersReceived(node=node, data=data)))


def test_a_chunk_beyond_its_bound_is_rejected() -> None:
    engine = witness_engine()
    before = others(engine)
    outputs = engine.step(START, MembersReceived(node=None, data=bytes(CHUNK_BYTES_MAX + 1)))
    assert [type(output) for output in outputs] == [Rejected]
    unharmed(engine, before, outputs)


# ---------------------------------------------------------------- the ends of the ranges
ENDS = (0, 1, 2**31, 2**32, 2**63 - 1, 2**63, UINT64_MAX - 1, UINT64_MAX)


@pytest.mark.parametrize("boot", ENDS)
@pytest.mark.parametrize("incarnation", ENDS)
def test_a_member_at_the_ends_of_the_ranges_is_a_member_like_any_other(boot: int, incarnation: int) -> None:
    engine = witness_engine()
    rank = (boot, incarnation)
    engine.step(START, MembersReceived(node=None, data=chunk(alive_of("x", rank), suspicion("a", "x", rank))))
    member = engine.member(identity_of("x").id)
    assert member is not None
    assert (member.rank, member.state) == (rank, State.SUSPECT)
    stranger = Speaker("y", boot=boot)
    stranger.counter = incarnation - 1
    engine.step(START, stranger.datagram(OWN, ping(UINT64_MAX >> 32), known_boot=incarnation))
    run(engine, 60.0)
    for name in "xy":
        member = engine.member(identity_of(name).id)
        assert member is not None
        assert member.state in (State.SUSPECT, State.DEAD)
    for data in members_payload(engine):
        decode_members(data)


@pytest.mark.parametrize(
    "rank", [(1, UINT64_MAX), (UINT64_MAX, 0), (UINT64_MAX, UINT64_MAX), (1, UINT64_MAX - 1)]
)
@pytest.mark.parametrize("kind", ["alive", "left"])
def test_an_own_earlier_life_at_the_end_of_the_range_breaks_nothing(rank: tuple[int, int], kind: str) -> None:
    """Only who holds this node's key can sign that; but a step never raises for what came over the network."""
    engine = witness_engine()
    before = engine.members()[1:]
    word = alive_of(OWN, rank) if kind == "alive" else left_of(OWN, rank)
    for _ in range(3):
        engine.step(START, MembersReceived(node=None, data=chunk(word, suspicion("a", OWN, rank))))
    assert engine.members()[1:] == before
    run(engine, 5.0)
    engine.step(START + 6, Leave())
    engine.step(START + 6, Join(seeds=()))
    assert engine.members()[0].state is State.ALIVE


def run(engine: Engine, seconds: float) -> None:
    end = START + seconds
    while (deadline := engine.deadline) is not None and deadline <= end:
        engine.step(deadline, Tick())


def test_a_long_storm_of_everything_leaves_the_engine_as_it_was() -> None:
    """One engine, thousands of hostile inputs: nothing adds up to a change, and no queue grows."""
    engine, rng = witness_engine(), random.Random(11)
    before = others(engine)
    originals = [data for _, group in DECODERS.values() for data in group]
    now = START
    for number in range(3000):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        hostile = bytes(data)
        now = START + number * 1e-4
        event = rng.choice(
            [
                Datagram(source=FROM, data=hostile),
                MembersReceived(node=None, data=hostile),
                sealed(hostile[: DATAGRAM_BYTES_MAX - 60]),
            ]
        )
        engine.step(now, event)
    assert others(engine) == before
    statistics = engine.statistics()
    assert statistics.updates_queued <= 8
    assert statistics.probes <= 4
    assert statistics.rejected > 1000


def test_the_valid_ones_are_valid() -> None:
    """What the tests above change is taken when unchanged, so they fail for what was changed."""
    engine = engine_of(OWN)
    for data in DATAGRAMS[:1]:
        outputs = engine.step(START, Datagram(source=SPEAKER.address, data=data))
        assert [output for output in outputs if isinstance(output, Rejected)] == []
    assert engine.member(SPEAKER.identity.id) is not None
    assert {type(decode_statement(data)) for data in DECODERS["statement"][1]} >= {Alive, Suspect, Dead}
    assert engine.step(START, sealed(encode_body(BODIES[0]))) != []
