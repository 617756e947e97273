"""Issuing: what a signer grants, refuses and puts off, and that a token's use is on disk before anything leaves."""

import asyncio
from typing import Any

import pytest

from peer.enroll import EnrollError, UnreachableError, certify, join, renew
from peer.io.store import StoreError
from peer.io.stream import ISSUE, Hello, connect, greet
from peer.issuer import REQUESTS_MAX
from peer.signing import LaterError
from trust.admission import create_token, parse_token, request_join
from trust.errors import TokenError
from trust.identity import NodeIdentity, spiffe_node, spiffe_workload
from trust.issuance import request_svid
from trust.revocation import NODE_REVOCATION_S, revoke
from trust.svid import new_leaf_key
from trust.tls import client_context_unverified

DOMAIN = "cluster.local"


def token_of(live: Any, person: Any, *seeds: Any, **rights: Any) -> Any:
    fields = {
        "services": ["default/shop"],
        "ttl_s": 600,
        "uses": 1,
        "publish": True,
        "invite": False,
    } | rights
    created = create_token(
        person.identity,
        person.credential,
        root_public=live.authority.root_public,
        seeds=seeds or [("127.0.0.1", 1)],
        now=live.now(),
        entropy=lambda n: bytes([len(live.spends) + n] * n),
        **fields,
    )
    return parse_token(created.text)


def newcomer(number: int) -> NodeIdentity:
    return NodeIdentity.from_seed(bytes([100 + number]) * 32)


async def test_a_newcomer_joins_renews_and_is_certified(live: Any, post: Any) -> None:
    signer = await post(live.member(1), signer=True)
    token = token_of(live, signer.person)
    identity = newcomer(1)
    member = await join(token, identity, "new", [signer.address], live.now)
    assert member.credential.services == ("default/shop",)
    assert [spend.node for spend in live.spends] == [identity.id]
    live.advance_s = 100
    renewed = await renew(member, identity, [signer.address], live.now)
    assert renewed.expires_at >= member.credential.expires_at + 99
    spiffe = spiffe_workload(DOMAIN, "default", "shop")
    live.advance_s = 0
    svid = await certify(member, identity, spiffe, new_leaf_key(bytes), [signer.address], live.now)
    assert svid.identity == spiffe


async def test_a_peer_that_is_no_signer_says_where_they_are(live: Any, post: Any) -> None:
    signer = await post(live.member(1), signer=True)
    hello = Hello(root_certificate=live.root, issues=False, signers=(signer.address,))
    other = await post(live.member(2), hello=hello)
    member = await join(token_of(live, signer.person), newcomer(1), "new", [other.address], live.now)
    assert member.credential.name == "new"


async def test_whoever_was_asked_in_vain_is_named_with_the_reason(live: Any, post: Any) -> None:
    other = await post(live.member(2))
    token = token_of(live, live.member(1))
    with pytest.raises(UnreachableError) as refusal:
        await join(token, newcomer(1), "new", [other.address], live.now)
    assert f"127.0.0.1:{other.address[1]}: does not know yet who signs" in str(refusal.value)
    assert "127.0.0.1:1: cannot connect" in str(refusal.value)


async def test_a_root_other_than_the_tokens_is_not_asked_for_anything(live: Any, post: Any) -> None:
    impostor = type(live)(b"another root")
    token = token_of(live, live.member(1))
    hello = Hello(root_certificate=impostor.root, issues=True, signers=())
    post_of_impostor = await post(live.member(3), signer=True, hello=hello)
    with pytest.raises(UnreachableError, match="another mesh"):
        await join(token, newcomer(1), "new", [post_of_impostor.address], live.now)
    assert live.spends == []


async def test_a_signer_may_not_answer_with_a_certificate_for_another_key(
    live: Any, post: Any, monkeypatch: Any
) -> None:
    signer, person = await post(live.member(1), signer=True), live.member(2)
    spiffe = spiffe_node(DOMAIN, person.identity.id)
    wrong = new_leaf_key(lambda n: b"w" * n)
    asked = request_svid(person.identity, person.credential, spiffe, wrong, live.now())
    other = await live.issuer().svid(asked)
    monkeypatch.setattr(type(signer.issuer), "svid", answering(other))
    with pytest.raises(UnreachableError, match="another key"):
        await certify(
            person.membership, person.identity, spiffe, new_leaf_key(bytes), [signer.address], live.now
        )


@pytest.mark.parametrize(
    ("account", "words"),
    [("default/bank", "may not act as default/bank"), ("other/shop", "may not act as other/shop")],
)
async def test_an_identity_the_credential_does_not_allow_is_refused(
    live: Any, post: Any, account: str, words: str
) -> None:
    signer = await post(live.member(1), signer=True)
    person = live.member(2, services=("default/shop",))
    spiffe = spiffe_workload(DOMAIN, *account.split("/"))
    with pytest.raises(EnrollError, match=words):
        await certify(
            person.membership, person.identity, spiffe, new_leaf_key(bytes), [signer.address], live.now
        )


async def test_a_revoked_node_gets_neither_credential_nor_certificate(live: Any, post: Any) -> None:
    signer, person = await post(live.member(1), signer=True), live.member(2)
    spiffe = spiffe_node(DOMAIN, person.identity.id)
    ends = live.now() + NODE_REVOCATION_S + 1
    live.revoked.add(revoke(live.authority, spiffe, reason="lost", now=live.now(), expires_at=ends))
    with pytest.raises(EnrollError, match="revoked"):
        await renew(person.membership, person.identity, [signer.address], live.now)
    with pytest.raises(EnrollError, match="revoked"):
        await certify(
            person.membership, person.identity, spiffe, new_leaf_key(bytes), [signer.address], live.now
        )


async def test_one_token_admits_one_host_however_often_it_asks(live: Any, post: Any) -> None:
    signer = await post(live.member(1), signer=True)
    token = token_of(live, signer.person)
    for _ in range(2):  # the answer got lost
        await join(token, newcomer(1), "new", [signer.address], live.now)
    with pytest.raises(EnrollError, match="used by another host"):
        await join(token, newcomer(2), "late", [signer.address], live.now)


def answering(der: bytes) -> Any:
    """An issuer's `svid` that always gives the same."""

    async def svid(_self: Any, _request: Any) -> bytes:
        return der

    return svid


class Disk:
    """Where spends go; full for a while."""

    def __init__(self) -> None:
        self.full = True
        self.kept: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def spent(self, spends: Any) -> None:
        await self.gate.wait()
        if self.full:
            raise StoreError("the disk is full")
        self.kept += spends


async def test_no_credential_leaves_before_the_use_of_its_token_is_on_disk(live: Any) -> None:
    disk = Disk()
    issuer = live.issuer(spent=disk.spent)
    request = request_join(newcomer(1), token_of(live, live.member(1)), "new", live.now()).encode()
    for _ in range(2):  # the ledger knows the host by the second time; the disk still does not
        with pytest.raises(LaterError, match="cannot write to its disk"):
            await issuer.credential(request)
    assert disk.kept == []
    disk.full = False
    credential = await issuer.credential(request)
    assert {spend.node for spend in disk.kept} == {credential.node}
    await issuer.credential(request)
    assert len(disk.kept) == 1


async def test_a_request_made_twice_at_once_waits_for_the_disk_twice(live: Any) -> None:
    disk = Disk()
    disk.full = False
    disk.gate.clear()
    issuer = live.issuer(spent=disk.spent)
    request = request_join(newcomer(1), token_of(live, live.member(1)), "new", live.now()).encode()
    asking = [asyncio.create_task(issuer.credential(request)) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(task.done() for task in asking)
    disk.gate.set()
    credentials = await asyncio.gather(*asking)
    assert credentials[0].node == credentials[1].node
    other = request_join(newcomer(2), token_of(live, live.member(1)), "late", live.now())
    with pytest.raises(TokenError, match="used by another host"):
        await issuer.credential(other.encode())


async def test_a_signer_with_a_full_disk_puts_off_and_another_one_is_asked(live: Any, post: Any) -> None:
    full = await post(live.member(1), signer=True, spent=Disk().spent)
    fine = await post(live.member(2), signer=True)
    token = token_of(live, full.person)
    member = await join(token, newcomer(1), "new", [full.address, fine.address], live.now)
    assert member.credential.name == "new"
    with pytest.raises(UnreachableError, match="cannot write to its disk"):
        await join(
            token_of(live, full.person, full.address, ttl_s=700),
            newcomer(2),
            "other",
            [full.address],
            live.now,
        )


@pytest.mark.parametrize(
    "frame", [b"?", b"c", b"v", b"cgarbage", b"v" + bytes(4000), b"c" + b"\xff" * 100_000]
)
async def test_requests_that_are_none_are_refused_with_words_and_the_stream_goes_on(
    live: Any, post: Any, frame: bytes
) -> None:
    signer = await post(live.member(1), signer=True)
    stream = await connect(signer.address, client_context_unverified(alpn=("gossamer/1",)))
    await greet(stream, ISSUE)
    for _ in range(2):
        stream.write(frame)
        answer = await stream.read()
        assert answer[:1] == b"e"
        assert len(answer) > 5
    await stream.closed()


async def test_a_stream_carries_a_bounded_number_of_requests(live: Any, post: Any) -> None:
    signer = await post(live.member(1), signer=True)
    stream = await connect(signer.address, client_context_unverified(alpn=("gossamer/1",)))
    await greet(stream, ISSUE)
    for _ in range(REQUESTS_MAX):
        stream.write(b"?")
        assert await stream.read()
    stream.write(b"?")
    assert await stream.read() == b""
    await stream.closed()


async def test_no_more_than_a_few_signers_are_tried(live: Any) -> None:
    closed = [("127.0.0.1", port) for port in range(1, 40)]
    with pytest.raises(UnreachableError) as refusal:
        await join(token_of(live, live.member(1)), newcomer(1), "new", closed, live.now)
    assert str(refusal.value).count("127.0.0.1:") <= 2 * 8


async def test_a_liar_that_refuses_does_not_stop_the_real_signer(live: Any, post: Any) -> None:
    liar = await post(live.member(1), hello=Hello(root_certificate=live.root, issues=True, signers=()))
    signer, person = await post(live.member(2), signer=True), live.member(3)
    spiffe = spiffe_node(DOMAIN, person.identity.id)
    asked = [liar.address, signer.address]
    svid = await certify(person.membership, person.identity, spiffe, new_leaf_key(bytes), asked, live.now)
    assert svid.identity == spiffe


async def test_a_signer_may_not_answer_with_somebody_elses_identity(
    live: Any, post: Any, monkeypatch: Any
) -> None:
    signer, person, other = await post(live.member(1), signer=True), live.member(2), live.member(3)
    key = new_leaf_key(bytes)
    theirs = spiffe_node(DOMAIN, other.identity.id)
    request = request_svid(other.identity, other.credential, theirs, key, live.now())
    der = await live.issuer().svid(request)
    monkeypatch.setattr(type(signer.issuer), "svid", answering(der))
    spiffe = spiffe_node(DOMAIN, person.identity.id)
    with pytest.raises(UnreachableError, match="not for spiffe://"):
        await certify(person.membership, person.identity, spiffe, key, [signer.address], live.now)


async def test_a_credential_made_out_to_somebody_else_is_not_taken(
    live: Any, post: Any, monkeypatch: Any
) -> None:
    signer, person, other = await post(live.member(1), signer=True), live.member(2), live.member(3)

    async def wrong(_body: bytes) -> Any:
        return other.credential

    monkeypatch.setattr(type(signer.issuer), "credential", lambda _self, body: wrong(body))
    with pytest.raises(UnreachableError, match="other keys"):
        await renew(person.membership, person.identity, [signer.address], live.now)


async def test_strangers_do_not_fill_the_log(live: Any, post: Any, caplog: Any) -> None:
    signer = await post(live.member(1), signer=True)
    issuer = signer.issuer
    for number in range(1000):
        assert (await issuer._answer(b"c" + bytes([number % 256]) * (number % 7)))[:1] == b"e"
    assert 1 <= caplog.text.count("issue_refused") < 50
