"""The stream port from outside: strangers, members of the wrong kind, floods and slow callers. Real sockets and TLS."""

import asyncio
import os
import ssl
from typing import Any

import msgpack
import pytest

import peer.io.listen as listen
from peer.channels import _svid_of, node_of
from peer.io.stream import ASK, FRAME_BYTES_MAX, ISSUE, SYNC, FrameStream, StreamError, connect, greet
from peer.messages import StreamClosed, StreamFrame, StreamOpened
from trust.bundle import ANY_MEMBER
from trust.identity import spiffe_node, spiffe_workload
from trust.revocation import NODE_REVOCATION_S, REVOCATION_S, revoke, serial_subject
from trust.tls import Caller, client_context_unverified


async def anonymous(address: Any) -> FrameStream:
    return await connect(address, client_context_unverified(alpn=("gossamer/1",)))


async def visit(address: Any, context: ssl.SSLContext) -> None:
    stream = await connect(address, context)
    try:
        await greet(stream, SYNC)
    finally:
        await stream.closed()


async def test_a_member_is_let_in_and_known_by_its_certificate(live: Any, post: Any, until: Any) -> None:
    server, caller = await post(live.member(1)), await post(live.member(2))
    stream = await connect(server.address, caller.channels.context_for(server.person.identity.id))
    hello = await greet(stream, SYNC)
    assert hello.root_certificate == live.root
    assert node_of(stream) == server.person.identity.id
    stream.write(b"sxyz")
    await until(lambda: len(server.heard) == 2)
    opened, frame = server.heard
    assert opened == StreamOpened(stream=2, node=caller.person.identity.id, inbound=True)
    assert frame == StreamFrame(stream=2, data=b"sxyz")
    await stream.closed()
    await until(lambda: len(server.heard) == 3)
    assert server.heard[2] == StreamClosed(stream=2, reason="")


@pytest.mark.parametrize("purpose", [SYNC, ASK, b"shell", b"\0" * 1000])
async def test_a_caller_without_a_certificate_gets_nothing_but_the_greeting(
    live: Any, post: Any, purpose: bytes
) -> None:
    server = await post(live.member(1))
    server.heads[b"w"] = 5
    stream = await anonymous(server.address)
    await greet(stream, purpose)
    stream.write(msgpack.packb([[b"w", 5]]))
    assert await stream.read() == b""
    assert server.heard == []
    await stream.closed()


async def test_a_workload_is_no_node(live: Any, post: Any) -> None:
    """The certificate of an application on a member host does not open the mesh's state."""
    server, person = await post(live.member(1)), live.member(2)
    workload = live.svid(person, spiffe_workload("cluster.local", "default", "shop"))
    caller = Caller(certificate=workload, bundle=live.bundle, alpn=("gossamer/1",))
    for purpose in (SYNC, ASK):
        stream = await connect(server.address, caller.expecting(ANY_MEMBER))
        await greet(stream, purpose)
        stream.write(msgpack.packb([]))
        assert await stream.read() == b""
        await stream.closed()
    assert server.heard == []


async def test_the_wrong_node_is_not_talked_to_and_the_reason_names_both(live: Any, post: Any) -> None:
    server, caller, wanted = await post(live.member(1)), await post(live.member(2)), live.member(3)
    with pytest.raises(StreamError) as refusal:
        await connect(server.address, caller.channels.context_for(wanted.identity.id))
    for person in (server.person, wanted):
        assert spiffe_node("cluster.local", person.identity.id) in str(refusal.value)


async def test_a_revoked_node_is_refused_on_both_sides(live: Any, post: Any) -> None:
    server, caller = await post(live.member(1)), await post(live.member(2))
    for person in (server.person, caller.person):
        subject = spiffe_node("cluster.local", person.identity.id)
        expires_at = live.now() + NODE_REVOCATION_S + 1
        proof = revoke(live.authority, subject, reason="lost", now=live.now(), expires_at=expires_at)
        live.revoked.add(proof)
        with pytest.raises(StreamError):
            await visit(server.address, caller.channels.context_for(None))
    assert server.heard == []


async def test_a_caller_of_another_mesh_is_refused(live: Any, post: Any) -> None:
    stranger = type(live)(b"another root").member(2)
    server = await post(live.member(1))
    caller = Caller(certificate=stranger.svid, bundle=live.bundle, alpn=("gossamer/1",))
    with pytest.raises(StreamError):
        await visit(server.address, caller.expecting(ANY_MEMBER))
    assert server.heard == []


async def raw(address: Any, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    if data:
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


@pytest.mark.parametrize(
    "data", [b"x", b"GET / HTTP/1.1\r\n\r\n", bytes(3), b"\x16\x03\x01\x02\x00" + os.urandom(512)]
)
async def test_what_is_no_tls_ends_in_a_closed_connection(live: Any, post: Any, data: bytes) -> None:
    server = await post(live.member(1))
    await raw(server.address, data)
    stream = await anonymous(server.address)
    assert (await greet(stream, ISSUE)).root_certificate == live.root
    await stream.closed()


async def test_a_caller_that_never_says_hello_is_cut_off(live: Any, post: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(listen, "CONNECT_TIMEOUT_S", 0.05)
    server = await post(live.member(1))
    assert await raw(server.address, b"") == b""


async def test_a_stranger_that_trickles_is_cut_off_whatever_it_does(
    live: Any, post: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(listen, "STRANGER_S_MAX", 0.3)
    server = await post(live.member(1), signer=True)
    stream = await anonymous(server.address)
    await greet(stream, ISSUE)
    async with asyncio.timeout(10):
        while await answered(stream):  # each request is answered in time; only the whole takes too long
            await asyncio.sleep(0.02)
    await stream.closed()


async def answered(stream: FrameStream) -> bool:
    stream.write(b"?")
    try:
        return await stream.read() != b""
    except StreamError:
        return False


async def test_a_member_may_stay_longer_than_a_stranger(live: Any, post: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(listen, "STRANGER_S_MAX", 0.2)
    server, caller = await post(live.member(1)), await post(live.member(2))
    stream = await connect(server.address, caller.channels.context_for(None))
    await greet(stream, ASK)
    asked = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - asked < 0.4:
        stream.write(msgpack.packb([]))
        assert msgpack.unpackb(await stream.read()) == [True, True]
    await stream.closed()


async def test_an_oversized_frame_ends_the_stream_before_it_is_read(live: Any, post: Any, until: Any) -> None:
    server, caller = await post(live.member(1)), await post(live.member(2))
    stream = await connect(server.address, caller.channels.context_for(None))
    await greet(stream, SYNC)
    stream._writer.write((FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x" * 100)
    await until(lambda: len(server.heard) == 2)
    assert server.heard[1] == StreamClosed(stream=2, reason=f"frame of {FRAME_BYTES_MAX + 1} bytes")
    await stream.closed()


async def test_a_flood_from_one_address_finds_no_place_and_goes_away_without_a_trace(
    live: Any, post: Any, monkeypatch: Any, until: Any
) -> None:
    monkeypatch.setattr(listen, "STRANGERS_PER_HOST_MAX", 8)
    server, caller = await post(live.member(1)), await post(live.member(2))
    member = await connect(server.address, caller.channels.context_for(None))
    await greet(member, ASK)
    flood = [await asyncio.open_connection(*server.address) for _ in range(60)]
    await until(lambda: server.channels.refused == 60 - 8)
    member.write(msgpack.packb([]))  # who is in stays in
    assert msgpack.unpackb(await member.read()) == [True, True]
    for _, writer in flood:
        writer.close()
    await until(lambda: server.channels._server.connections == 1)
    again = await connect(server.address, caller.channels.context_for(None))
    await greet(again, ASK)
    for stream in (member, again):
        await stream.closed()


async def test_no_more_connections_than_the_bound_members_or_not(
    live: Any, post: Any, monkeypatch: Any, until: Any
) -> None:
    monkeypatch.setattr(listen, "CONNECTIONS_MAX", 4)
    server, caller = await post(live.member(1)), await post(live.member(2))
    streams = []
    for _ in range(4):
        stream = await connect(server.address, caller.channels.context_for(None))
        await greet(stream, ASK)
        streams.append(stream)
    with pytest.raises(StreamError):
        await connect(server.address, caller.channels.context_for(None))
    assert server.channels.refused == 1
    for stream in streams:
        await stream.closed()


async def test_a_handler_that_breaks_is_reported_and_takes_nobody_with_it(
    live: Any, post: Any, until: Any, caplog: Any
) -> None:
    server, caller = await post(live.member(1)), await post(live.member(2))

    async def broken(_stream: FrameStream, _purpose: bytes) -> None:
        raise KeyError("a fault of the program")

    server.channels._server.handle(b"broken", broken)
    stream = await connect(server.address, caller.channels.context_for(None))
    await greet(stream, b"broken")
    assert await stream.read() == b""
    await stream.closed()
    await until(lambda: "stream_handler_failed" in caplog.text)
    again = await connect(server.address, caller.channels.context_for(None))
    await greet(again, ASK)
    await again.closed()


async def test_a_new_certificate_is_shown_to_new_callers_and_open_streams_go_on(live: Any, post: Any) -> None:
    server, caller = await post(live.member(1)), await post(live.member(2))
    before = await connect(server.address, caller.channels.context_for(None))
    await greet(before, ASK)
    renewed = live.svid(server.person, spiffe_node("cluster.local", server.person.identity.id))
    server.channels.present(renewed)
    after = await connect(server.address, caller.channels.context_for(None))
    await greet(after, ASK)
    for stream in (before, after):
        stream.write(msgpack.packb([]))
        assert msgpack.unpackb(await stream.read()) == [True, True]
    shown = [stream.ssl_object.getpeercert(binary_form=True) for stream in (before, after)]
    assert shown[0] != shown[1]
    assert ssl.DER_cert_to_PEM_cert(shown[1]).split() == renewed.chain_pem.decode().split()
    for stream in (before, after):
        await stream.closed()


async def test_closing_ends_the_streams_that_are_open(live: Any, post: Any) -> None:
    server, caller = await post(live.member(1)), await post(live.member(2))
    stream = await connect(server.address, caller.channels.context_for(None))
    await greet(stream, ASK)
    address = server.address
    await server.channels.close()
    assert not await answered(stream)
    await stream.closed()
    with pytest.raises(StreamError, match="Connection refused"):
        await connect(address, caller.channels.context_for(None))


async def test_a_flood_from_few_addresses_does_not_keep_members_out(
    live: Any, post: Any, monkeypatch: Any, until: Any
) -> None:
    monkeypatch.setattr(listen, "STRANGERS_MAX", 8)
    monkeypatch.setattr(listen, "STRANGERS_PER_HOST_MAX", 6)
    server, caller = await post(live.member(1)), await post(live.member(2))
    flood = []
    for number in (2, 3):  # all places taken, by two addresses
        local = (f"127.0.9.{number}", 0)
        flood += [await asyncio.open_connection(*server.address, local_addr=local) for _ in range(6)]
    await until(lambda: server.channels.refused >= 4)
    stream = await connect(server.address, caller.channels.context_for(None))
    await greet(stream, ASK)
    stream.write(msgpack.packb([]))
    assert msgpack.unpackb(await stream.read()) == [True, True]
    await stream.closed()
    for _, writer in flood:
        writer.close()


async def test_one_member_has_few_places(live: Any, post: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(listen, "PER_MEMBER_MAX", 2)
    server = await post(live.member(1))
    greedy, other = await post(live.member(2)), await post(live.member(3))
    held = []
    for _ in range(2):
        stream = await connect(server.address, greedy.channels.context_for(None))
        await greet(stream, ASK)
        held.append(stream)
    third = await connect(server.address, greedy.channels.context_for(None))
    with pytest.raises(StreamError):
        await greet(third, ASK)
    another = await connect(server.address, other.channels.context_for(None))
    await greet(another, ASK)
    for stream in (*held, third, another):
        await stream.closed()


async def test_a_revoked_members_streams_are_cut(live: Any, post: Any, until: Any) -> None:
    server, caller = await post(live.member(1)), await post(live.member(2))
    stream = await connect(server.address, caller.channels.context_for(None))
    await greet(stream, ASK)
    stream.write(msgpack.packb([]))
    assert msgpack.unpackb(await stream.read()) == [True, True]
    server.channels.cut(caller.person.identity.id)
    assert await ended(stream)
    await until(lambda: server.channels._server.connections == 0)
    await stream.closed()


@pytest.mark.parametrize("what", ["certificate", "node"])
async def test_streams_shown_a_certificate_that_is_revoked_are_cut_and_no_others(
    live: Any, post: Any, what: str
) -> None:
    server = await post(live.member(1))
    lost, other = await post(live.member(2)), await post(live.member(3))
    streams = []
    for caller in (lost, other):
        stream = await connect(server.address, caller.channels.context_for(None))
        await greet(stream, ASK)
        stream.write(msgpack.packb([]))
        await stream.read()
        streams.append(stream)
    shown = next(
        peer
        for stream in server.channels._server._secure.values()
        if (peer := _svid_of(stream)) is not None and peer.node == lost.person.identity.id
    )
    subject = serial_subject(shown.serial) if what == "certificate" else shown.spiffe
    now = live.now()
    live.revoked.add(revoke(live.authority, subject, reason="", now=now, expires_at=now + REVOCATION_S))
    server.channels.cut_revoked()
    assert await ended(streams[0])
    streams[1].write(msgpack.packb([]))
    assert msgpack.unpackb(await streams[1].read()) == [True, True]
    for stream in streams:
        await stream.closed()


async def test_what_this_peer_opened_to_a_node_that_is_no_member_ends_too(
    live: Any, post: Any, until: Any
) -> None:
    caller, server = await post(live.member(1)), await post(live.member(2))
    caller.channels.exchanges.open(1, server.address, None)
    await until(lambda: 1 in caller.channels.exchanges._live)
    caller.channels.cut(bytes(16))
    assert 1 in caller.channels.exchanges._live
    caller.channels.cut(server.person.identity.id)
    await until(lambda: 1 not in caller.channels.exchanges._live)


async def ended(stream: FrameStream) -> bool:
    """Whether the other side has closed it, politely or not."""
    try:
        return await stream.read() == b""
    except StreamError:
        return True
