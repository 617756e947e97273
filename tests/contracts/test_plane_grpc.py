"""gRPC through the mesh, with the client and the server of grpcio: on this host, and over two workers and mTLS."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from proxy.snapshot import Authorization, AuthzPolicy, AuthzRule, Endpoint, Operation, RetryPolicy

from .application import App, answer
from .certificates import spiffe
from .greeter import LARGE, MIB, Greeter, Stub, refused
from .patience import until
from .twohosts import BOTH, Mesh, Service

pytestmark = pytest.mark.asyncio(loop_scope="session")


def service(where: str, port: int, **options: Any) -> Service:
    return Service("echo", {where: port}, protocol="grpc", **options)


@BOTH
async def test_a_unary_call_with_metadata_of_both_kinds(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        call = stub.unary("Unary", b"hello", metadata=(("x-text", "t"), ("x-data-bin", b"\x00\x01\xfe\xff")))
        assert await call == b"hello"
        assert await call.code() == grpc.StatusCode.OK
        first, last = dict(await call.initial_metadata()), dict(await call.trailing_metadata())
    seen = greeter.metadata[0]
    assert (seen["x-text"], seen["x-data-bin"]) == ("t", b"\x00\x01\xfe\xff")
    assert seen["x-forwarded-client-cert"] == f"By={spiffe('echo')};URI={spiffe('web')}"
    assert "traceparent" in seen
    assert (first["x-first"], first["x-raw-bin"]) == ("a", b"\x00\xff")
    assert (last["x-last"], last["x-end-bin"]) == ("z", b"\x01\x80")


@BOTH
async def test_streams_in_each_direction(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        assert [part async for part in stub.spread("Spread", b"100")] == [b"%d" % n for n in range(100)]
        assert await stub.collect("Collect", iter([b"a", b"b", b"c"])) == b"a,b,c"
        assert await stub.collect("Collect", iter([])) == b""


@BOTH
async def test_both_sides_stream_at_the_same_time(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        call = stub.chat()
        for number in range(20):  # each answer is here before the next message goes out
            await call.write(b"%d" % number)
            assert await call.read() == b"re: %d" % number
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK
        assert [await stub.unary("Unary", b"%d" % n) for n in range(3)] == [b"0", b"1", b"2"]


@BOTH
async def test_messages_larger_than_every_window(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    message = bytes(range(256)) * (MIB // 256)
    async with Stub(mesh.port()) as stub:
        assert await stub.unary("Unary", message) == message
        assert await asyncio.gather(*(stub.unary("Unary", message) for _ in range(4))) == [message] * 4


@BOTH
async def test_many_calls_share_a_connection(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        answers = await asyncio.gather(*(stub.unary("Unary", b"%d" % n) for n in range(300)))
    assert answers == [b"%d" % n for n in range(300)]


@BOTH
async def test_the_server_s_status_and_words_pass(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        for code in (1, 3, 5, 7, 9, 16):
            error = await refused(stub.unary("Fail", b"%d" % code))
            assert (error.code().value[0], error.details()) == (code, "wörds % of\nthe server")
        error = await refused(stub.unary("Missing"))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED


@BOTH
async def test_an_answer_before_the_request_is_complete(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        call = stub.collect("Early")
        error = await refused(call)
        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
        assert await stub.unary("Unary", b"next") == b"next"
        stream = stub.chat("Once")
        await stream.write(b"a")
        assert (await stream.read(), await stream.read()) == (b"re: a", grpc.aio.EOF)
        assert await stub.unary("Unary", b"next") == b"next"


@BOTH
async def test_a_deadline_ends_the_call_on_both_sides(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        error = await refused(stub.unary("Wait", timeout=0.3))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: greeter.cancelled == 1, "the server hears of it")


@BOTH
async def test_a_cancelled_call_is_cancelled_at_the_server(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        call = stub.unary("Wait", timeout=60)
        await until(lambda: greeter.calls == 1, "the call arrives")
        call.cancel()
        await until(lambda: greeter.cancelled == 1, "the server hears of it")
        assert await stub.unary("Unary", b"next") == b"next"
        await mesh.log_line("a", flags="DC", path="/t.Echo/Wait", protocol="HTTP/2")


@BOTH
async def test_denied_calls_say_so(mesh: Mesh, greeter: Greeter, where: str) -> None:
    deny = AuthzPolicy(
        name="default/no", variants=((AuthzRule(operations=(Operation(paths=("/t.Echo/Fail",)),)),),)
    )
    await mesh.serve(service(where, greeter.port, authorization=Authorization(deny=(deny,))))
    async with Stub(mesh.port()) as stub:
        error = await refused(stub.unary("Fail", b"3"))
        assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "RBAC: access denied")
        assert await stub.unary("Unary", b"allowed") == b"allowed"
    assert greeter.calls == 1


@BOTH
async def test_calls_are_counted_under_their_status(mesh: Mesh, greeter: Greeter, where: str) -> None:
    name = f"counted-{where}"  # what earlier tests did may still be reported
    await mesh.serve(Service(name, {where: greeter.port}, protocol="grpc"))
    async with Stub(mesh.port(), authority=name) as stub:
        await stub.unary("Unary")
        await refused(stub.unary("Fail", b"5"))
    found: set[tuple[str, int, str]] = set()

    def counted() -> bool:
        for plane in mesh.planes.values():
            for each in plane.observations().series:
                if each.destination_service == name:
                    found.add((each.reporter, each.code, each.grpc_status))
        return len(found) == 4

    await until(counted, "two calls on both sides")
    assert found == {(side, 200, status) for side in ("source", "destination") for status in ("0", "5")}


async def test_no_such_service_and_no_endpoint(mesh: Mesh, greeter: Greeter) -> None:
    await mesh.serve(Service("echo", {}, protocol="grpc"))
    async with Stub(mesh.port()) as stub, Stub(mesh.port(), authority="nobody") as lost:
        error = await refused(stub.unary("Unary"))
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "no healthy upstream")
        error = await refused(lost.unary("Unary"))
        assert (error.code(), error.details()) == (
            grpc.StatusCode.UNIMPLEMENTED,
            'no service "nobody" in the mesh',
        )


@BOTH
async def test_an_application_that_does_not_listen_is_unavailable(
    mesh: Mesh, unused_tcp_port: int, where: str
) -> None:
    await mesh.serve(service(where, unused_tcp_port, cluster={"retry": RetryPolicy(attempts=0)}))
    async with Stub(mesh.port()) as stub:
        error = await refused(stub.unary("Unary"))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert "cannot connect" in (error.details() or "")


@BOTH
async def test_an_application_that_speaks_no_http2_is_unavailable(mesh: Mesh, app: App, where: str) -> None:
    await mesh.serve(service(where, app.port))
    async with Stub(mesh.port()) as stub:
        error = await refused(stub.unary("Unary"))
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error


@BOTH
async def test_a_server_that_dies_in_the_middle_of_a_stream(mesh: Mesh, where: str) -> None:
    greeter = await Greeter().start()
    await mesh.serve(service(where, greeter.port))
    async with Stub(mesh.port()) as stub:
        call = stub.spread("Break", b"")
        assert await call.read() == b"one"
        await greeter.server.stop(None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_calls_of_one_channel_are_balanced(mesh: Mesh, greeter: Greeter) -> None:
    second = await Greeter("second").start()
    try:
        await mesh.serve(
            Service(
                "echo",
                {"a": greeter.port, "b": second.port},
                protocol="grpc",
                cluster={"balancer": "round_robin"},
            )
        )
        async with Stub(mesh.port()) as stub:
            names = [await stub.unary("Unary") for _ in range(10)]
        assert names.count(b"second") == 5
    finally:
        await second.server.stop(None)


async def test_a_retry_on_unavailable_goes_elsewhere(mesh: Mesh, greeter: Greeter) -> None:
    dead = Endpoint(
        id="x/echo", node="x", host="127.0.0.1", port=1, sni="echo.default.mesh", identity=spiffe("echo")
    )
    await mesh.serve(service("b", greeter.port, endpoints=(dead,), cluster={"balancer": "round_robin"}))
    async with Stub(mesh.port()) as stub:
        assert await asyncio.gather(*(stub.unary("Unary") for _ in range(6))) == [b"greeter"] * 6


async def test_a_status_to_retry_on_is_retried(mesh: Mesh, greeter: Greeter) -> None:
    policy = RetryPolicy(attempts=2, on=("unavailable",), backoff_base_s=0.001, budget_floor=10)
    await mesh.serve(service("b", greeter.port, cluster={"retry": policy}))
    async with Stub(mesh.port()) as stub:
        assert (await refused(stub.unary("Fail", b"14"))).code() == grpc.StatusCode.UNAVAILABLE
        assert greeter.calls == 3
        assert (await refused(stub.unary("Fail", b"3"))).code() == grpc.StatusCode.INVALID_ARGUMENT
        assert greeter.calls == 4


@BOTH
async def test_an_http1_caller_of_a_grpc_service(mesh: Mesh, greeter: Greeter, where: str) -> None:
    await mesh.serve(service(where, greeter.port))
    headers = {"content-type": "application/grpc", "te": "trailers"}
    reply = await mesh.call(method="POST", path="/t.Echo/Unary", headers=headers, body=b"\0\0\0\0\x02hi")
    assert (reply.status, reply.body) == (200, b"\0\0\0\0\x02hi")
    assert ("grpc-status", "0") in reply.trailers
    reply = await mesh.call(method="POST", path="/t.Echo/Fail", headers=headers, body=b"\0\0\0\0\x013")
    assert (reply.status, reply.header("grpc-status"), reply.body) == (200, "3", b"")


@BOTH
async def test_a_grpc_caller_of_an_http1_application(mesh: Mesh, app: App, where: str) -> None:
    """What is no gRPC is passed on as it is: the caller maps the status of HTTP itself."""

    async def script(_: App, request: Any, reader: Any, writer: Any) -> None:
        writer.write(answer(418, b"teapot"))

    app.script = script
    await mesh.serve(Service("echo", {where: app.port}))
    async with Stub(mesh.port()) as stub:
        error = await refused(stub.unary("Unary", b"hi"))
        assert (error.code(), "418" in (error.details() or "")) == (grpc.StatusCode.UNKNOWN, True)
    assert (app.received[0].method, app.received[0].body) == ("POST", b"\0\0\0\0\x02hi")


async def test_a_stream_s_connection_between_hosts_is_used_again(mesh: Mesh, greeter: Greeter) -> None:
    """Its response begins before its request is complete, which for other requests is the connection's end."""
    await mesh.serve(service("b", greeter.port))
    fields = b"host: echo\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n"
    message, reply = b"\0\0\0\0\x01a", b"\0\0\0\0\x05re: a"
    async with mesh.inbound("echo") as connection:
        for _ in range(2):
            await connection.send(b"POST /t.Echo/Chat HTTP/1.1\r\n" + fields + b"6\r\n" + message + b"\r\n")
            status, headers = await connection.read_head()
            assert (status, dict(headers).get("connection")) == (200, None)
            assert await asyncio.wait_for(connection.reader.readuntil(reply + b"\r\n"), 10)
            await connection.send(b"0\r\n\r\n")
            assert b"grpc-status: 0" in await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), 10)
        await connection.send(b"POST /t.Echo/Early HTTP/1.1\r\n" + fields)
        status, headers = await connection.read_head()
        assert (dict(headers)["grpc-status"], dict(headers)["connection"]) == ("8", "close")
        assert await connection.at_end()
    async with mesh.inbound("echo") as connection:
        await connection.send(b"POST /t.Echo/Once HTTP/1.1\r\n" + fields + b"6\r\n" + message + b"\r\n")
        status, headers = await connection.read_head()
        assert (status, dict(headers).get("connection")) == (200, None)
        assert b"grpc-status: 0" in await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), 10)
        assert await connection.at_end(), (
            "the rest of the request is nobody's: the next would be read from its middle"
        )


async def test_grpc_by_an_upstream_port(mesh: Mesh, greeter: Greeter) -> None:
    await mesh.serve(service("b", greeter.port), upstreams=("echo",))
    async with Stub(mesh.port("a/echo"), authority="whatever") as stub:
        assert await stub.unary("Unary", b"hi") == b"hi"


async def test_the_server_s_goaway_loses_no_call(mesh: Mesh) -> None:
    greeter = Greeter()
    options, LARGE[:] = (
        LARGE[:],
        [*LARGE, ("grpc.max_connection_age_ms", 150), ("grpc.max_connection_age_grace_ms", 5000)],
    )
    try:
        await greeter.start()
    finally:
        LARGE[:] = options
    await mesh.serve(service("b", greeter.port))
    loop = asyncio.get_running_loop()
    async with Stub(mesh.port()) as stub:
        end = loop.time() + 1.0
        while loop.time() < end:
            assert await asyncio.gather(*(stub.unary("Unary", b"x") for _ in range(5))) == [b"x"] * 5
    await greeter.server.stop(None)
