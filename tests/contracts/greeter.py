"""A gRPC server and a channel to it, both of grpcio, which tests of several files use."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

MIB = 1024 * 1024
LARGE: Any = [("grpc.max_receive_message_length", 8 * MIB), ("grpc.max_send_message_length", 8 * MIB)]


@dataclass
class Greeter:
    """A gRPC server on a real socket, which notes what it sees."""

    name: str = "greeter"
    metadata: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    calls: int = 0
    port: int = 0
    server: Any = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> "Greeter":
        self.server = grpc.aio.server(options=LARGE)
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Spread": grpc.unary_stream_rpc_method_handler(self.spread),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Once": grpc.stream_stream_rpc_method_handler(self.once),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Early": grpc.stream_unary_rpc_method_handler(self.early),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Break": grpc.unary_stream_rpc_method_handler(self.break_off),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Echo", handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return self

    async def unary(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        self.metadata.append(dict(context.invocation_metadata()))
        await context.send_initial_metadata((("x-first", "a"), ("x-raw-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-last", "z"), ("x-end-bin", b"\x01\x80")))
        return request or self.name.encode()

    async def spread(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def collect(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b",".join([request async for request in requests])

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield b"re: " + request

    async def once(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield b"re: " + request
            return

    async def fail(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        await context.abort(grpc.StatusCode(_CODES[int(request)]), "wörds % of\nthe server")
        raise AssertionError

    async def early(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
        raise AssertionError

    async def wait(self, request: bytes, context: Any) -> bytes:
        self.calls += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b"late"

    async def break_off(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        await self.gate.wait()


_CODES = {code.value[0]: code.value for code in grpc.StatusCode}


class Stub:
    """Calls by name on one channel of its own."""

    def __init__(self, port: int, authority: str = "echo") -> None:
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}",
            options=[
                ("grpc.default_authority", authority), ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0), *LARGE,
            ],
        )  # fmt: skip

    def unary(self, name: str, request: bytes = b"", **options: Any) -> Any:
        return self.channel.unary_unary(f"/t.Echo/{name}")(
            request, timeout=options.pop("timeout", 10), **options
        )

    def spread(self, name: str, request: bytes, **options: Any) -> Any:
        return self.channel.unary_stream(f"/t.Echo/{name}")(request, timeout=10, **options)

    def collect(self, name: str, requests: Any = None) -> Any:
        return self.channel.stream_unary(f"/t.Echo/{name}")(requests, timeout=10)

    def chat(self, name: str = "Chat") -> Any:
        return self.channel.stream_stream(f"/t.Echo/{name}")(timeout=10)

    async def __aenter__(self) -> "Stub":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value
