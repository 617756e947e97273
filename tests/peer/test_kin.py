"""Members without certificates: served by their node keys and credentials, and nobody else is."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from peer.acquaintance import Introducer, der_of, passing_certificate
from peer.io.listen import StreamServer
from peer.io.stream import ALPN, KIN, Hello, StreamError
from peer.kin import KNOWN_S, PLACES_MAX, Kin
from trust.codec import pack
from trust.identity import spiffe_node
from trust.revocation import REVOCATION_S, revoke
from trust.tls import server_context_unverified

SIGN = b"sign"


class Relative:
    """A member that listens without a certificate, and echoes for whom it serves."""

    def __init__(self, live, person, places):
        self.person, self.served, self.refused, self.places = person, [], [], places
        certificate = passing_certificate(live.now())
        self.kin = Kin(
            identity=person.identity, credential=lambda: self.person.credential,
            root_public=live.authority.root_public, revoked=live.revoked, address=("127.0.0.1", 1),
            certificate=lambda: der_of(certificate), where=lambda _node: None,
            places=lambda: [each.address for each in places if each is not self], now=live.now,
        )  # fmt: skip
        hello = Hello(root_certificate=live.root, issues=True, signers=())
        context = server_context_unverified(certificate, alpn=(ALPN,))
        self.server = StreamServer(context, lambda: hello, lambda _stream: None)
        self.server.handle(KIN, self._serve)
        places.append(self)

    @property
    def address(self):
        return "127.0.0.1", self.server.port

    async def _serve(self, stream, _purpose):
        try:
            purpose = await self.kin.answer(stream)
            self.served.append((self.kin.member_of(stream), purpose))
            stream.write(b"echo " + await stream.read())
            await stream.flush()
        except StreamError as error:
            self.refused.append(str(error))
        finally:
            self.kin.forget(stream)


@pytest.fixture
async def relatives(live):
    places = []
    made = [Relative(live, live.member(number), places) for number in (1, 2, 3)]
    for each in made:
        await each.server.start("127.0.0.1", 0)
    yield made
    for each in made:
        await each.server.close()


async def asked(one: Relative, other: Relative) -> bytes:
    stream = await one.kin.dial(other.person.identity.id, SIGN)
    try:
        stream.write(b"hello")
        return await stream.read()
    finally:
        stream.abort()


async def test_a_member_finds_another_and_is_served_as_itself(relatives):
    one, two, three = relatives
    assert await asked(one, two) == b"echo hello"
    assert two.served == [(one.person.identity.id, SIGN)]
    assert three.served == []
    assert two.kin._nodes == {}, "nothing is kept of streams that ended"


async def test_whom_nobody_knows_is_told(relatives, live):
    one, *_ = relatives
    with pytest.raises(StreamError, match="nobody knows where"):
        await one.kin.dial(live.member(9).identity.id, SIGN)


async def test_another_peer_at_the_address_is_found_out(relatives):
    one, two, three = relatives
    one.kin.where = lambda _node: three.address
    with pytest.raises(StreamError, match="is another peer, node-3"):
        await one.kin.dial(two.person.identity.id, SIGN)


def expired(live, person):
    credential = replace(person.credential, issued_at=1000, expires_at=2000)
    return credential.signed(live.authority.sign(credential.signing_bytes()))


def forged(_live, person):
    return replace(person.credential, name="admin")


def borrowed(live, _person):
    return live.member(7).credential


@pytest.mark.parametrize(
    ("make", "words"), [(expired, "expired"), (forged, "refused"), (borrowed, "another node's credential")]
)
async def test_who_has_no_good_credential_is_not_served(relatives, live, make: Callable, words, until):
    one, two, _ = relatives
    stream, _card = await Introducer(one.person.identity, one.kin._card, None).call(two.address, KIN)
    stream.write(pack([SIGN, make(live, one.person).encode()]))
    await until(lambda: two.refused)
    stream.abort()
    assert words in two.refused[-1]
    assert two.served == []


async def test_the_revoked_are_not_served(relatives, live, until):
    one, two, _ = relatives
    subject = spiffe_node("cluster.local", one.person.identity.id)
    ends = int(live.now() + REVOCATION_S)
    live.revoked.add(revoke(live.authority, subject, reason="lost", now=live.now(), expires_at=ends))
    one.kin.where = lambda _node: two.address
    stream = await one.kin.dial(two.person.identity.id, SIGN)
    await until(lambda: two.refused)
    stream.abort()
    assert "revoked" in two.refused[-1]


async def test_only_so_many_places_are_asked_who_is_there(relatives, live, monkeypatch):
    one, *_ = relatives
    looked = []

    async def look(_self, place):
        looked.append(place)

    monkeypatch.setattr(Kin, "_look_at", look)
    one.kin.places = lambda: [("127.0.0.1", port) for port in range(2, PLACES_MAX + 20)]
    with pytest.raises(StreamError, match="nobody knows where"):
        await one.kin.dial(live.member(9).identity.id, SIGN)
    assert len(looked) == PLACES_MAX


async def test_who_was_found_is_forgotten_after_a_while(live, relatives):
    one, two, three = relatives
    with pytest.raises(StreamError, match="nobody knows where"):
        await one.kin.dial(bytes(16), SIGN)
    assert set(one.kin._found) == {two.person.identity.id, three.person.identity.id}
    one.places.remove(three)
    live.advance_s = KNOWN_S + 1
    with pytest.raises(StreamError, match="nobody knows where"):
        await one.kin.dial(bytes(16), SIGN)
    assert set(one.kin._found) == {two.person.identity.id}
