"""Who comes to found a mesh that runs: founders and those with its secret are let in, others are told what to do."""

from dataclasses import replace

import pytest

from peer.acquaintance import Introducer, UnacquaintedError, der_of, passing_certificate
from peer.io.listen import StreamServer
from peer.io.stream import ALPN, FOUND, Hello, StreamError
from peer.readmission import FOUNDER_S, GRANTED, LATER, SECRET_S, TOKEN, Readmission
from trust.admission import parse_token
from trust.authority import root_since
from trust.bootstrap import BootstrapSecret, Card
from trust.ceremony.alone import founded_alone
from trust.codec import Reader
from trust.epoch import RECORD_BYTES_MAX, decode_epoch
from trust.errors import BootstrapError
from trust.identity import NodeIdentity, spiffe_node
from trust.revocation import REVOCATION_S, revoke
from trust.tls import server_context_unverified

SECRET = BootstrapSecret(b"s" * 32)
FOUNDER = NodeIdentity.from_seed(b"f" * 32)
STRANGER = NodeIdentity.from_seed(b"x" * 32)


class Gate:
    """A member of a running mesh."""

    def __init__(self, live, secret):
        self.live, self.clock = live, live.now()
        self.record, _ = founded_alone(FOUNDER, "cluster.local", b"r" * 32)
        self.member = live.member(1)
        certificate = passing_certificate(live.now())
        self.readmission = Readmission(
            identity=self.member.identity, secret=secret, credential=lambda: self.member.credential,
            root_public=live.authority.root_public, revoked=live.revoked, address=("127.0.0.1", 7946),
            certificate=lambda: der_of(certificate), founding=lambda: self.record, founded_at=root_since(live.root),
            now=lambda: self.clock,
        )  # fmt: skip
        context = server_context_unverified(certificate, alpn=(ALPN,))
        hello = Hello(root_certificate=live.root, issues=True, signers=())
        self.server = StreamServer(context, lambda: hello, lambda _stream: None)
        self.server.handle(FOUND, self.readmission.serve)

    async def ask(self, identity, secret, domain="cluster.local"):
        card = Card(
            public_key=identity.public_key, name="late", host="127.0.0.1", port=1, trust_domain=domain,
            expect=3, threshold=2, started_at=5,
        ).signed(identity)  # fmt: skip
        stream, theirs = await Introducer(identity, lambda: card, secret).call(
            ("127.0.0.1", self.server.port)
        )
        try:
            assert theirs.expect == 0
            stream.write(TOKEN)
            return await stream.read()
        finally:
            stream.abort()


@pytest.fixture
async def gate(live):
    made = []

    async def make(secret=None):
        made.append(Gate(live, secret))
        await made[-1].server.start("127.0.0.1", 0)
        return made[-1]

    yield make
    for each in made:
        await each.server.close()


def token_in(answer):
    assert answer[:1] == GRANTED, answer
    reader = Reader(answer[1:], count=2, bytes_max=RECORD_BYTES_MAX * 2, what="x", error=BootstrapError)
    return parse_token(reader.text(9000)), decode_epoch(reader.blob(RECORD_BYTES_MAX))


async def test_a_founder_gets_a_founder_s_token_without_any_secret(gate):
    one = await gate()
    token, record = token_in(await one.ask(FOUNDER, None))
    assert record == one.record
    assert (token.invitation.govern, token.invitation.uses) == (True, 1)


async def test_who_has_the_secret_is_let_in_and_does_not_govern(gate):
    one = await gate(SECRET)
    token, _ = token_in(await one.ask(STRANGER, SECRET))
    assert (token.invitation.govern, token.invitation.invite) == (False, True)


async def test_strangers_are_told_to_join_with_a_token(gate):
    one = await gate()
    assert b"join it with a token" in await one.ask(STRANGER, None)


async def test_another_trust_domain_is_told(gate):
    one = await gate(SECRET)
    assert b"trust domain" in await one.ask(STRANGER, SECRET, "elsewhere")


async def test_a_revoked_founder_is_not_let_in(gate, live):
    one = await gate()
    subject = spiffe_node("cluster.local", FOUNDER.id)
    ends = int(live.now() + REVOCATION_S)
    live.revoked.add(revoke(live.authority, subject, reason="lost", now=live.now(), expires_at=ends))
    assert b"revoked" in await one.ask(FOUNDER, None)


async def test_a_founder_whose_revocation_has_expired_is_none_any_more(gate, live):
    one = await gate()
    subject = spiffe_node("cluster.local", FOUNDER.id)
    ends = int(live.now() + REVOCATION_S)
    live.revoked.add(revoke(live.authority, subject, reason="lost", now=live.now(), expires_at=ends))
    assert live.revoked.prune(ends + 1)
    assert b"join it with a token" in await one.ask(FOUNDER, None)


async def test_a_founder_s_claim_ends_when_its_first_credential_cannot_be_renewed_any_more(gate):
    one = await gate(SECRET)
    one.readmission.founded_at = one.clock - FOUNDER_S + 5
    token, _ = token_in(await one.ask(FOUNDER, SECRET))
    assert token.invitation.govern
    one.readmission.founded_at = one.clock - FOUNDER_S - 5
    one.clock += 1
    assert b"join it with a token" in await one.ask(FOUNDER, SECRET)
    one.readmission.secret = None
    assert b"join it with a token" in await one.ask(FOUNDER, None)


async def test_the_secret_opens_the_mesh_for_a_day_and_founders_for_longer(gate):
    one = await gate(SECRET)
    one.readmission.founded_at = one.clock - SECRET_S + 60
    token_in(await one.ask(STRANGER, SECRET))
    one.clock += 7200
    answer = await one.ask(STRANGER, SECRET)
    assert b"the bootstrap secret let peers in until 1 hour ago: join it with a token" in answer
    token_in(await one.ask(FOUNDER, SECRET))


async def test_the_secret_opens_nothing_beyond_its_own_end(gate):
    one = await gate(SECRET)
    one.readmission.founded_at = one.clock
    one.readmission.secret = ended = replace(SECRET, expires_at=int(one.clock) + 100)
    token_in(await one.ask(STRANGER, ended))
    one.clock += 101
    assert b"the bootstrap secret let peers in until" in await one.ask(STRANGER, ended)


async def test_tokens_are_made_one_at_a_time(gate):
    one = await gate()
    token_in(await one.ask(FOUNDER, None))
    assert (await one.ask(FOUNDER, None))[:1] == LATER
    one.clock += 1
    token_in(await one.ask(FOUNDER, None))


async def test_a_member_that_may_not_invite_leaves_it_to_others(gate, live):
    one = await gate()
    one.member = live.person(one.member.identity, "node-1", invite=False)
    answer = await one.ask(FOUNDER, None)
    assert answer[:1] == LATER
    assert b"lets nobody in" in answer
    assert b"may not invite" in answer


async def test_who_does_not_know_the_founding_yet_puts_off(gate):
    one = await gate()
    one.record = None
    assert (await one.ask(FOUNDER, None))[:1] == LATER


async def test_who_keeps_asking_does_not_fill_the_log(gate, caplog):
    caplog.set_level("INFO")
    one = await gate()
    for _ in range(5):
        assert b"join it with a token" in await one.ask(STRANGER, None)
        with pytest.raises((UnacquaintedError, StreamError)):  # it may hang up before its reason is sent
            await one.ask(STRANGER, SECRET)
    token_in(await one.ask(FOUNDER, None))
    assert caplog.text.count("founder_not_let_in") == 1
    assert caplog.text.count("founder_refused") == 1
    assert caplog.text.count("founder_let_in") == 1
