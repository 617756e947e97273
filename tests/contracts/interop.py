"""grpc.testing.TestService of grpc's interop description, on grpcio, with its few messages written out by hand.

Only what the cases that apply to a proxy use is here: sizes, payloads, a wished-for status. A message is a mapping from
field number to its values: bytes for length-delimited fields, int for the others.
"""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

SERVICE = "grpc.testing.TestService"
INITIAL_KEY, TRAILING_KEY = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
Message = dict[int, list[Any]]


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes((value & 127 | 128,))
        value >>= 7
    return out + bytes((value,))


def encode(message: Message) -> bytes:
    out = b""
    for number, values in message.items():
        for value in values:
            if isinstance(value, int):
                out += _varint(number << 3) + _varint(value)
            else:
                out += _varint(number << 3 | 2) + _varint(len(value)) + value
    return out


def decode(data: bytes) -> Message:
    message: Message = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        value: Any = varint()
        if key & 7 == 2:
            at += value
            value = data[at - value : at]
        message.setdefault(key >> 3, []).append(value)
    return message


def payload(size: int) -> bytes:
    """A Payload of zeros."""
    return encode({2: [bytes(size)]})


def payload_bytes(payload_message: bytes) -> bytes:
    return bytes(decode(payload_message).get(2, [b""])[0])


def simple_request(answered: int, sent: int, status: tuple[int, str] | None = None) -> bytes:
    """SimpleRequest: `response_size`, `payload`, `response_status`."""
    message: Message = {2: [answered], 3: [payload(sent)]}
    if status is not None:
        message[7] = [encode({1: [status[0]], 2: [status[1].encode()]})]
    return encode(message)


def streaming_request(
    answered: list[int], sent: int | None = None, status: tuple[int, str] | None = None
) -> bytes:
    """StreamingOutputCallRequest: `response_parameters`, `payload`, `response_status`."""
    message: Message = {2: [encode({1: [size]}) for size in answered]}
    if sent is not None:
        message[3] = [payload(sent)]
    if status is not None:
        message[7] = [encode({1: [status[0]], 2: [status[1].encode()]})]
    return encode(message)


class TestService:
    """The server. `begun` and `ended` count streams of requests: one that its caller leaves open ends when the server
    hears that the call is cancelled."""

    __test__ = False  # no collection of tests

    def __init__(self) -> None:
        self.begun = self.ended = 0

    async def start(self) -> int:
        self.server = grpc.aio.server()
        handlers = {
            "EmptyCall": grpc.unary_unary_rpc_method_handler(self._empty),
            "UnaryCall": grpc.unary_unary_rpc_method_handler(self._unary),
            "StreamingInputCall": grpc.stream_unary_rpc_method_handler(self._input),
            "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(self._output),
            "FullDuplexCall": grpc.stream_stream_rpc_method_handler(self._duplex),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port: int = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()
        return port

    async def _echo_metadata(self, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        if INITIAL_KEY in metadata:
            await context.send_initial_metadata(((INITIAL_KEY, metadata[INITIAL_KEY]),))
        if TRAILING_KEY in metadata:
            context.set_trailing_metadata(((TRAILING_KEY, metadata[TRAILING_KEY]),))

    async def _wished_status(self, message: Message, context: Any) -> None:
        if 7 in message:
            status = decode(message[7][0])
            code = next(code for code in grpc.StatusCode if code.value[0] == status[1][0])
            await context.abort(code, status[2][0].decode())

    async def _empty(self, request: bytes, context: Any) -> bytes:
        return b""

    async def _unary(self, request: bytes, context: Any) -> bytes:
        await self._echo_metadata(context)
        message = decode(request)
        await self._wished_status(message, context)
        return encode({1: [payload(message.get(2, [0])[0])]})

    async def _input(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.begun += 1
        total = 0
        try:
            async for request in requests:
                total += len(payload_bytes(decode(request).get(1, [b""])[0]))
        finally:
            self.ended += 1
        return encode({1: [total]})

    async def _output(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for parameter in decode(request).get(2, []):
            yield encode({1: [payload(decode(parameter).get(1, [0])[0])]})

    async def _duplex(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.begun += 1
        try:
            await self._echo_metadata(context)
            async for request in requests:
                message = decode(request)
                await self._wished_status(message, context)
                for parameter in message.get(2, []):
                    yield encode({1: [payload(decode(parameter).get(1, [0])[0])]})
        finally:
            self.ended += 1
