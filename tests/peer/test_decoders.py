"""Every decoder there is, and every one to come: whatever the bytes, a value or the error it promises.

Decoders are found, not listed: functions of the packages called `decode…`, `unpack…` or `parse…` whose first argument
is bytes. Those that are called otherwise, or are methods, are listed (`BY_NAME`). Each gets arbitrary bytes, arbitrary
MessagePack, and lists such as its own encoder would make, of the small numbers, byte strings of usual lengths, words
and nested lists that lead deep into it. What valid bytes with one thing changed do is tested where the format is
(tests/gossip/test_fuzz.py and the tests of each format).
"""

import base64
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
from hpack import HPACKDecodingError
from hypothesis import example, given, settings
from hypothesis import strategies as st

import crdt
import gossip
import peer
import proxy
import trust
from peer import acquaintance, history, unnamed
from peer.custody import Custody
from peer.handover import decode_settled
from peer.io.keys import Keys
from tests.trust.rolled import DOMAIN, first_certificate
from trust.authority import check_root_validity, load_certificate, read_root, root_since
from trust.bundle import TrustBundle
from trust.ceremony.statement import ceremony_of
from trust.roots import roots_from
from trust.transparency import read_denial

PACKAGES = (crdt, gossip, peer, proxy, trust)
PREFIXES = ("decode", "unpack", "parse")
FEWEST = 38  # fewer would mean that they are not found any more
FILLED: dict[str, Any] = {"size_max": 4096, "bytes_max": 4096, "versions": (1, 2)}
ELSEWHERE = {
    "peer.io.stale.decode_boot"
}  # reads what this peer wrote to its own database, behind a checksum of SQLite's

OTHERS = {
    "proxy.embedded.http2_huffman.decode": HPACKDecodingError
}  # a stand-in for a library's, with its error

Decoder = Callable[[bytes], object]


def decoders() -> Iterator[tuple[str, Decoder]]:
    """By their full names."""
    for package in PACKAGES:
        for module_info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module_info.name.endswith("__main__"):
                continue
            module = importlib.import_module(module_info.name)
            for name, found in vars(module).items():
                function = inspect.unwrap(found) if callable(found) else None
                if not name.startswith(PREFIXES) or not inspect.isfunction(function):
                    continue
                full = f"{module_info.name}.{name}"
                first, *others = inspect.signature(function).parameters.values()
                if (
                    function.__module__ != module_info.name
                    or first.annotation is not bytes
                    or full in ELSEWHERE
                ):
                    continue
                filled = {p.name: FILLED[p.name] for p in others if p.default is p.empty}
                yield full, partial(found, **filled)


DECODERS = dict(decoders())

_custody = Custody(Keys(Path("/nowhere")), bytes(32), bytes(16))
BY_NAME: dict[str, Decoder] = {
    "trust.authority.load_certificate": lambda data: load_certificate(data, "a certificate"),
    "trust.authority.read_root": lambda data: read_root(data, DOMAIN),
    "trust.authority.root_since": root_since,
    "trust.authority.check_root_validity": lambda data: check_root_validity(data, 0.0),
    "trust.bundle.from_pem": lambda data: TrustBundle.from_pem(DOMAIN, data),
    "trust.bundle.from_pem, framed": lambda data: TrustBundle.from_pem(
        DOMAIN, b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
    ),
    "trust.bundle.read_peer": TrustBundle(DOMAIN, [first_certificate()]).read_peer,
    "trust.roots.roots_from": lambda data: roots_from(data, (), DOMAIN),
    "trust.roots.roots_from, rollovers": lambda data: roots_from(first_certificate(), (data,), DOMAIN),
    "trust.transparency.read_denial": lambda data: read_denial(
        data, root_public=bytes(32), trust_domain=DOMAIN, writer=bytes(16)
    ),
    "trust.ceremony.statement.ceremony_of": ceremony_of,
    "peer.acquaintance._read_greeting": acquaintance._read_greeting,
    "peer.custody._decode": _custody._decode,
    "peer.handover.decode_settled": decode_settled,
    "peer.history._decoded": history._decoded,
    "peer.unnamed._decode": unnamed._decode,
}

words = st.sampled_from(
    ["", "apply", "drain", "started", "outcome", "report", "HTTPRoute", "kind", "version", "reason"]
)
lengths = st.sampled_from([0, 1, 8, 12, 15, 16, 17, 24, 31, 32, 33, 63, 64, 65, 128])
leaves = st.one_of(
    st.integers(0, 12),
    st.sampled_from([-1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1]),
    st.booleans(),
    st.none(),
    st.floats(),
    words,
    st.text(max_size=12),
    st.builds(bytes, lengths),
    lengths.flatmap(lambda length: st.binary(min_size=length, max_size=length)),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=12)),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=12),
        st.dictionaries(st.one_of(words, st.text(max_size=4), st.integers(0, 9)), inner, max_size=4),
    ),
    max_leaves=24,
)


def packed(value: object) -> bytes:
    data: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass")
    return data


shaped = st.one_of(values, st.lists(values, max_size=12)).map(packed)
streams = st.lists(values.map(packed), max_size=8).map(
    b"".join
)  # values one after the other, as some formats have them
unusual = st.sampled_from(
    [
        b"\x81\x90\x00",  # a map whose key is a list
        b"\x81\x80\x00",  # or a map
        b"\xd6\xff" + b"\xff" * 4,  # MessagePack's own times
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\x91" * 2000 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        packed("\ud800"),
        b"\xa1\xff",
    ]
)
wrapped = unusual.flatmap(
    lambda data: st.integers(1, 9).map(lambda count: bytes([0x90 + count]) + data * count)
)
anything = st.one_of(st.binary(max_size=300), shaped, streams, unusual, wrapped)


def promised(error: Exception) -> bool:
    """Whether it is one of the project's own."""
    return type(error).__module__.split(".")[0] in {package.__name__ for package in PACKAGES}


def test_all_are_found() -> None:
    assert len(DECODERS) >= FEWEST
    packages = {name.split(".")[0] for name in DECODERS}
    assert packages == {package.__name__ for package in PACKAGES}
    assert "gossip.statement.decode_statement" in DECODERS


@given(data=anything)
@settings(max_examples=300)
@example(b"\x81\x90\x00")
def test_whatever_the_bytes_a_decoder_returns_or_raises_what_it_promises(data: bytes) -> None:
    for name, decode in (DECODERS | BY_NAME).items():
        try:
            decode(data)
        except Exception as error:
            if not promised(error) and type(error) is not OTHERS.get(name):
                raise AssertionError(f"{name}: {error!r}") from error
