"""The cases of grpc's interop description (doc/interop-test-descriptions.md of grpc) that a proxy has a part in.

Both ends are grpcio; between them is the mesh, on one host and over two workers with mTLS. Left out is what asks
nothing of a proxy: credentials of clouds (compute_engine_creds, jwt_token_creds, oauth2_auth_token, per_rpc_creds,
google_*), load reports and look-aside balancing (orca_*, grpclb), and the probes of compression that ask the server's
library whether a message arrived compressed (the bytes do pass: `test_compressed_messages`).
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from .greeter import Stub, refused
from .interop import (
    INITIAL_KEY,
    SERVICE,
    TRAILING_KEY,
    TestService,
    decode,
    encode,
    payload,
    payload_bytes,
    simple_request,
    streaming_request,
)
from .patience import until
from .twohosts import BOTH, Mesh, Service

pytestmark = [pytest.mark.asyncio(loop_scope="session"), BOTH]

LARGE_REQUEST, LARGE_RESPONSE = 271_828, 314_159
STREAM_REQUESTS = (27_182, 8, 1_828, 45_904)
STREAM_RESPONSES = (31_415, 9, 2_653, 58_979)
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"


@pytest_asyncio.fixture(loop_scope="session")
async def service(mesh: Mesh, where: str) -> AsyncIterator[TestService]:
    made = TestService()
    port = await made.start()
    await mesh.serve(Service("interop", {where: port}, protocol="grpc"))
    yield made
    await made.server.stop(None)


@pytest_asyncio.fixture(loop_scope="session")
async def channel(mesh: Mesh, service: TestService) -> AsyncIterator[Any]:
    async with Stub(mesh.port(), authority="interop") as stub:
        yield stub.channel


def method(name: str) -> str:
    return f"/{SERVICE}/{name}"


def body_of(response: bytes) -> bytes:
    return payload_bytes(decode(response)[1][0])


async def test_empty_unary(channel: Any) -> None:
    assert await channel.unary_unary(method("EmptyCall"))(b"", timeout=10) == b""


async def test_large_unary(channel: Any) -> None:
    response = await channel.unary_unary(method("UnaryCall"))(
        simple_request(LARGE_RESPONSE, LARGE_REQUEST), timeout=10
    )
    assert body_of(response) == bytes(LARGE_RESPONSE)


async def test_compressed_messages(channel: Any) -> None:
    """client_compressed_unary and client_compressed_streaming, but for the probe of the server library."""
    for compression in (grpc.Compression.Gzip, grpc.Compression.NoCompression):
        call = channel.unary_unary(method("UnaryCall"))
        response = await call(
            simple_request(LARGE_RESPONSE, LARGE_REQUEST), timeout=10, compression=compression
        )
        assert len(body_of(response)) == LARGE_RESPONSE
        stream = channel.stream_unary(method("StreamingInputCall"))
        requests = [encode({1: [payload(size)]}) for size in (27_182, 45_904)]
        assert decode(await stream(iter(requests), timeout=10, compression=compression))[1] == [73_086]


async def test_client_streaming(channel: Any) -> None:
    requests = [encode({1: [payload(size)]}) for size in STREAM_REQUESTS]
    response = await channel.stream_unary(method("StreamingInputCall"))(iter(requests), timeout=10)
    assert decode(response)[1] == [74_922]


async def test_server_streaming(channel: Any) -> None:
    call = channel.unary_stream(method("StreamingOutputCall"))(
        streaming_request(list(STREAM_RESPONSES)), timeout=10
    )
    assert [len(body_of(response)) async for response in call] == list(STREAM_RESPONSES)


async def test_ping_pong(channel: Any) -> None:
    call = channel.stream_stream(method("FullDuplexCall"))(timeout=10)
    for sent, answered in zip(STREAM_REQUESTS, STREAM_RESPONSES, strict=True):
        await call.write(streaming_request([answered], sent))
        assert len(body_of(await call.read())) == answered
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_empty_stream(channel: Any) -> None:
    call = channel.stream_stream(method("FullDuplexCall"))(timeout=10)
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_custom_metadata(channel: Any) -> None:
    metadata = ((INITIAL_KEY, "test_initial_metadata_value"), (TRAILING_KEY, b"\xab\xab\xab"))
    unary = channel.unary_unary(method("UnaryCall"))(
        simple_request(LARGE_RESPONSE, LARGE_REQUEST), timeout=10, metadata=metadata
    )
    await unary
    duplex = channel.stream_stream(method("FullDuplexCall"))(timeout=10, metadata=metadata)
    await duplex.write(streaming_request([LARGE_RESPONSE], LARGE_REQUEST))
    await duplex.done_writing()
    assert len(body_of(await duplex.read())) == LARGE_RESPONSE
    for call in (unary, duplex):
        assert dict(await call.initial_metadata())[INITIAL_KEY] == "test_initial_metadata_value"
        assert dict(await call.trailing_metadata())[TRAILING_KEY] == b"\xab\xab\xab"


@pytest.mark.parametrize("words", ["test status message", SPECIAL])
async def test_status_code_and_message(channel: Any, words: str) -> None:
    """And special_status_message."""
    error = await refused(
        channel.unary_unary(method("UnaryCall"))(simple_request(0, 0, (2, words)), timeout=10)
    )
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, words)
    call = channel.stream_stream(method("FullDuplexCall"))(timeout=10)
    await call.write(streaming_request([], status=(2, words)))
    await call.done_writing()
    error = await refused(call.read())
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, words)


@pytest.mark.parametrize(
    "path", [method("UnimplementedCall"), "/grpc.testing.UnimplementedService/UnimplementedCall"]
)
async def test_unimplemented_method_and_service(channel: Any, path: str) -> None:
    error = await refused(channel.unary_unary(path)(b"", timeout=10))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_cancel_after_begin(channel: Any, service: TestService) -> None:
    call = channel.stream_unary(method("StreamingInputCall"))(timeout=60)
    await until(lambda: service.begun == 1, "the server has begun")
    call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED
    await until(lambda: service.ended == 1, "the server hears of it")


async def test_cancel_after_first_response(channel: Any, service: TestService) -> None:
    call = channel.stream_stream(method("FullDuplexCall"))(timeout=60)
    await call.write(streaming_request([31_415], 27_182))
    assert len(body_of(await call.read())) == 31_415
    call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED
    await until(lambda: service.ended == 1, "the server hears of it")


async def test_timeout_on_sleeping_server(channel: Any, service: TestService) -> None:
    call = channel.stream_stream(method("FullDuplexCall"))(timeout=0.2)
    try:
        await call.write(streaming_request([], 27_182))
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass  # the deadline may be faster
    assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await until(lambda: service.ended == service.begun, "the server hears of it")


async def test_concurrent_large_unary(channel: Any) -> None:
    request = simple_request(LARGE_RESPONSE, LARGE_REQUEST)
    call = channel.unary_unary(method("UnaryCall"))
    responses = await asyncio.gather(*(call(request, timeout=30) for _ in range(20)))
    assert [len(body_of(response)) for response in responses] == [LARGE_RESPONSE] * 20


async def test_rpc_soak_and_channel_soak(mesh: Mesh, channel: Any) -> None:
    request = simple_request(314, 271)
    for _ in range(100):
        assert len(body_of(await channel.unary_unary(method("UnaryCall"))(request, timeout=10))) == 314
    for _ in range(10):
        async with Stub(mesh.port(), authority="interop") as stub:
            assert (
                len(body_of(await stub.channel.unary_unary(method("UnaryCall"))(request, timeout=10))) == 314
            )
