"""Streams between peers: length-prefixed frames over TLS 1.3 on the gossip port.

    frame = 4 bytes length, big-endian | body      (body <= FRAME_BYTES_MAX)

The accepting side speaks first: a `Hello` with the mesh root's certificate and where the signers are. A
caller that is a member has shown its certificate in the handshake; a caller without one may ask for identity
(`peer/issuer.py`) and nothing else. The caller's first frame then names its purpose: `sync` hands the stream
to the node, `issue` to the issuer, `sign` to the signer, `ask` to whoever answers questions about this peer.

Invariant: no read or write waits for ever, and no frame is read beyond its bound.
"""

import asyncio
import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from gossip.events import Address

FRAME_BYTES_MAX: Final = 256 * 1024
CONNECT_TIMEOUT_S: Final = 5.0
FRAME_TIMEOUT_S: Final = 15.0
WRITE_BUFFER_MAX: Final = 8 * 1024 * 1024
VERSIONS: Final = (1, 1)  # the lowest and the highest protocol of streams that this peer speaks
ALPN: Final = "gossamer/1"

SYNC, ISSUE, ASK, SEEN, SIGN, SPENT = b"sync", b"issue", b"ask", b"seen", b"sign", b"spent"
CEREMONY, FOUND, KIN = b"ceremony", b"found", b"kin"


class StreamError(Exception):
    """A stream could not be opened or broke; the message is for a person."""


class UnreachableError(StreamError):
    """Nobody answers at that address."""


class FrameStream:
    """One connection, in frames. Every method raises StreamError only."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def ssl_object(self) -> ssl.SSLObject:
        found = self._writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found

    async def read(self, timeout_s: float = FRAME_TIMEOUT_S) -> bytes:
        """The next frame; b"" at a clean end."""
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    head = await self._reader.readexactly(4)
                except asyncio.IncompleteReadError as error:
                    if not error.partial:
                        return b""
                    raise
                length = int.from_bytes(head, "big")
                if not 0 < length <= FRAME_BYTES_MAX:
                    raise StreamError(f"frame of {length} bytes")
                return await self._reader.readexactly(length)
        except TimeoutError:
            raise StreamError(f"no frame within {timeout_s:g} s") from None
        except (asyncio.IncompleteReadError, OSError, ssl.SSLError) as error:
            raise StreamError(f"connection lost: {error}") from error

    def write(self, body: bytes) -> None:
        """Queue a frame. A receiver that lets WRITE_BUFFER_MAX bytes pile up is cut off."""
        if len(body) > FRAME_BYTES_MAX:
            raise StreamError(f"frame of {len(body)} bytes is over the bound of {FRAME_BYTES_MAX}")
        if self._writer.transport.is_closing():
            return
        if self._writer.transport.get_write_buffer_size() > WRITE_BUFFER_MAX:
            self._writer.transport.abort()
            return
        self._writer.write(len(body).to_bytes(4, "big") + body)

    async def flush(self, timeout_s: float = FRAME_TIMEOUT_S) -> None:
        """Wait until the other side has taken most of what was written."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._writer.drain()
        except TimeoutError:
            raise StreamError(f"nothing was taken within {timeout_s:g} s") from None
        except (OSError, ssl.SSLError) as error:
            raise StreamError(f"connection lost: {error}") from error

    def close(self) -> None:
        self._writer.close()

    def abort(self) -> None:
        """Close without a good-bye."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        """Close and wait until it is."""
        self._writer.close()
        try:
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
        except (OSError, ssl.SSLError):
            self._writer.transport.abort()  # the other side did not say goodbye in time
        except asyncio.CancelledError:
            self._writer.transport.abort()  # nobody is left to wait for it
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the accepting side says first."""

    root_certificate: bytes  # DER, of the root the mesh was founded with
    issues: bool  # it can have certificates signed
    signers: tuple[Address, ...]
    rollovers: tuple[bytes, ...] = ()  # encoded, to the root of today


def encode_hello(hello: Hello) -> bytes:
    body: bytes = msgpack.packb(
        [
            list(VERSIONS),
            hello.root_certificate,
            hello.issues,
            [list(a) for a in hello.signers[:16]],
            list(hello.rollovers),
        ]
    )
    return body


def decode_hello(data: bytes) -> Hello:
    """Raises StreamError."""
    fields: Any
    try:
        fields = msgpack.unpackb(data, max_bin_len=4096, max_str_len=64, max_array_len=32)
    except (ValueError, msgpack.UnpackException) as error:
        raise StreamError(f"not a greeting: {error}") from error
    match fields:
        case [[int(lowest), int(highest)], bytes(root), bool(issues), list(signers), *rest]:
            if min(highest, VERSIONS[1]) < max(lowest, VERSIONS[0]):
                raise StreamError(
                    f"the other side speaks protocols {lowest} to {highest}, this peer {VERSIONS[0]} to {VERSIONS[1]}"
                )
            addresses = [(a[0], a[1]) for a in signers if _is_address(a)]
            return Hello(
                root_certificate=root, issues=issues, signers=tuple(addresses), rollovers=_rollovers(rest)
            )
    raise StreamError("not a greeting")


def _rollovers(rest: list[object]) -> tuple[bytes, ...]:
    """What versions that know of one root only leave out."""
    told = rest[0] if rest else []
    if not isinstance(told, list):
        raise StreamError("not a greeting: its roots are no list")
    found = tuple(each for each in told if isinstance(each, bytes))
    if len(found) != len(told):
        raise StreamError("not a greeting: its roots are no list of rollovers")
    return found


def _is_address(item: object) -> bool:
    match item:
        case [str(host), int(port)] if type(port) is int and 0 < port < 65536:
            try:
                ipaddress.ip_address(host)
            except ValueError:
                return False  # a name would be somebody else's to resolve
            return True
    return False


async def connect(
    address: Address, context: ssl.SSLContext, timeout_s: float = CONNECT_TIMEOUT_S
) -> FrameStream:
    """Open a stream. Raises StreamError with the reason in plain words."""
    host, port = address
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, server_hostname=host, limit=FRAME_BYTES_MAX + 4
            )
    except TimeoutError:
        raise UnreachableError(f"no answer from {host}:{port} within {timeout_s:g} s") from None
    except ssl.SSLError as error:
        raise StreamError(f"the TLS handshake with {host}:{port} failed: {_words(error)}") from error
    except (OSError, UnicodeError) as error:
        raise UnreachableError(f"cannot connect to {host}:{port}: {_words(error)}") from error
    return FrameStream(reader, writer)


def _words(error: Exception) -> str:
    """What an error says, whichever of its attributes says it (one that was raised by hand has not all of them)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message or str(error)
    if isinstance(error, OSError) and (error.errno or 0) > 0 and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno or 0)
    return str(getattr(error, "reason", "") or getattr(error, "strerror", "") or error)


async def greet(stream: FrameStream, purpose: bytes) -> Hello:
    """The caller's opening: hear the greeting, name the purpose."""
    hello = decode_hello(await stream.read())
    stream.write(purpose)
    return hello
