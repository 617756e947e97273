"""What contexts do not do: write keys, ask for passwords, grow, tell secrets."""

import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from trust import tls
from trust.bundle import ANY_NODE
from trust.errors import SvidError
from trust.svid import KeyedSvid
from trust.tls import (
    Caller,
    ServerContext,
    client_context_unverified,
    server_context,
)

CART, WEB = "spiffe://cluster.local/ns/default/sa/cart", "spiffe://cluster.local/ns/default/sa/web"


def test_a_private_key_reaches_no_file(live, tmp_path: Path) -> None:
    """Every open for writing that Python does is audited; the one memory file is not a file of any file system."""
    svid = live.node_svid()
    script = """
import os, ssl, sys
from dataclasses import dataclass
from trust.bundle import TrustBundle
from trust.tls import Caller, server_context

@dataclass
class Svid:
    identity: str
    chain_pem: bytes
    key_pem: bytes

svid = Svid("x", bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2]))
bundle = TrustBundle("cluster.local", [bytes.fromhex(sys.argv[3])])
loaded = []
real = ssl.SSLContext.load_cert_chain
def load_cert_chain(self, path, *args, **kwargs):
    loaded.append(os.readlink(path))
    return real(self, path, *args, **kwargs)
ssl.SSLContext.load_cert_chain = load_cert_chain
def audit(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):
        mode, flags = arguments[1] or "", arguments[2] or 0
        if set("wax+") & set(mode) or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            print("written:", arguments[0])
sys.addaudithook(audit)
before = set(os.listdir("/proc/self/fd"))
server_context(bundle=bundle, identities={"a": svid}, default=svid)
Caller(certificate=svid, bundle=bundle).expecting("spiffe://cluster.local/ns/a/sa/b")
assert set(os.listdir("/proc/self/fd")) == before, "a descriptor leaked"
print(loaded)
"""
    arguments = [svid.chain_pem.hex(), svid.key_pem.hex(), live.root_der.hex()]
    finished = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=Path(tls.__file__).parent.parent,
        env={"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == str(["/memfd:gossamer-svid (deleted)"] * 3)
    assert list(tmp_path.iterdir()) == []


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(live, bundle) -> None:
    svid = live.node_svid()
    encrypted = subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-passout", "pass:secret"],
        input=svid.key_pem,
        capture_output=True,
        check=True,
    ).stdout
    locked = KeyedSvid(identity="x", chain_pem=svid.chain_pem, key_pem=encrypted, not_before=0, not_after=1)
    with pytest.raises(SvidError, match="do not load"):
        Caller(certificate=locked, bundle=bundle)


def test_contexts_serve_event_loops_and_nothing_that_would_bypass_the_checks(live, bundle) -> None:
    server = server_context(bundle=bundle, default=live.node_svid())
    client = Caller(certificate=live.node_svid(), bundle=bundle).expecting(CART)
    for context in (server, client, client_context_unverified()):
        assert isinstance(context, ssl.SSLContext)
        with pytest.raises(NotImplementedError, match="not blocking sockets"):
            context.wrap_socket(None)
        # What C code would see of the shell: no anchors, and a certificate is demanded.
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.get_ca_certs() == []


def test_contexts_per_expected_peer_are_kept_and_bounded(live, bundle, monkeypatch) -> None:
    monkeypatch.setattr(tls, "CONTEXTS_CACHED_MAX", 2)
    caller = Caller(certificate=live.node_svid(), bundle=bundle)
    cart, web = caller.expecting(CART), caller.expecting(WEB)
    assert caller.expecting(CART) is cart
    caller.expecting(live.founder.spiffe)
    assert caller.expecting(CART) is cart
    assert caller.expecting(WEB) is not web
    assert caller.expecting(ANY_NODE) is not caller.expecting(ANY_NODE)


def test_reprs_say_who_calls_whom_and_no_secret(live, bundle) -> None:
    svid = live.node_svid()
    caller = Caller(certificate=svid, bundle=bundle)
    server = server_context(bundle=bundle, identities={"a": svid}, default=svid)
    assert isinstance(server, ServerContext)
    shown = [repr(caller), repr(caller.expecting(CART)), repr(caller.expecting(ANY_NODE)), repr(server)]
    assert shown[0] == f"Caller({svid.identity})"
    assert shown[1] == f"ClientContext({svid.identity} -> {CART})"
    assert shown[2].endswith("any node of the mesh)")
    assert shown[3] == "ServerContext(cluster.local, 1 names, client required)"
