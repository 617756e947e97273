"""A node that joins has no anchors yet: it finds out afterwards who answered."""

import pytest

from trust.authority import root_fingerprint
from trust.bundle import TrustBundle
from trust.errors import SvidError
from trust.identity import NodeSpiffe
from trust.svid import KeyedSvid
from trust.tls import (
    client_context_unverified,
    server_context,
    verify_introduction,
)

TRUST_DOMAIN = "cluster.local"


class TestIntroduction:
    """A node that joins encrypts towards whoever answers, then finds out who that is."""

    async def meet(self, stage, root_der: bytes, fingerprint: bytes):
        client = await stage.dial(client_context_unverified())
        assert client.tls.peer is None
        return verify_introduction(client.tls, root_der, fingerprint=fingerprint, trust_domain=TRUST_DOMAIN)

    def test_a_node_of_the_right_mesh_is_recognised(self, run, wire, live, bundle) -> None:
        async def story() -> None:
            context = server_context(bundle=bundle, default=live.node_svid(), client_certificate="optional")
            async with wire.listening(context) as stage:
                seed = await self.meet(stage, live.root_der, root_fingerprint(live.root_public))
                assert seed.id == NodeSpiffe(TRUST_DOMAIN, live.founder.identity.id)

        run(story())

    def test_an_impostor_is_recognised_whichever_root_it_shows(self, run, wire, live, make_mesh) -> None:
        async def story() -> None:
            impostor = make_mesh(seed=77, now=live.now)
            context = server_context(
                bundle=TrustBundle(TRUST_DOMAIN, [impostor.root_der]),
                default=impostor.node_svid(),
                client_certificate="optional",
            )
            fingerprint = root_fingerprint(live.root_public)
            async with wire.listening(context) as stage:
                with pytest.raises(SvidError, match="belongs to another mesh"):
                    await self.meet(stage, impostor.root_der, fingerprint)
                with pytest.raises(SvidError, match="not signed by the mesh root"):
                    await self.meet(stage, live.root_der, fingerprint)
                with pytest.raises(SvidError, match="do not decode"):
                    await self.meet(stage, b"nonsense", fingerprint)

        run(story())

    def test_a_workload_and_an_expired_node_are_no_seeds(self, run, wire, live, bundle) -> None:
        async def story() -> None:
            for svid, reason in (
                (live.workload_svid("cart"), "a node's certificate"),
                (expired(live), "expired"),
            ):
                context = server_context(bundle=bundle, default=svid, client_certificate="optional")
                async with wire.listening(context) as stage:
                    with pytest.raises(SvidError, match=reason):
                        await self.meet(stage, live.root_der, root_fingerprint(live.root_public))

        run(story())


def expired(live) -> KeyedSvid:
    return live.odd_leaf(not_before=live.now - 7200, not_after=live.now - 3600)
