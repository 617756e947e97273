"""One member takes all the places for exchanges this node opens."""

from typing import Any

from gossip.message import Body, Gossip, encode_body
from gossip.statement import sign_alive, sign_suspect
from gossip.wire import KeyRing, seal
from peer.messages import DatagramReceived, Joined, JoinSeeds, OpenStream
from tests.peer.test_node import three


def test_one_member_cannot_take_all_the_places_for_own_exchanges(world: Any) -> None:
    a, _b, _c = three(world)
    node = world.nodes[a]
    identity, credential = world.mesh.member(9)
    boot, counter = int(world.now * 1000), int(world.now * 1e6)
    keys = KeyRing(identity, keys_max=8)
    receiver = node.identity

    opened = []
    for number in range(20):
        address = (f"192.0.2.{number + 1}", 7946)
        alive = sign_alive(
            identity, credential, boot=boot, incarnation=number, address=address, zone="", meta={}
        )
        unknown = sign_suspect(identity, subject=bytes(16), rank=(1, 1))
        body = Body(
            message=Gossip(),
            known_boot=0,
            updates=(alive.encode() if number else b"", unknown.encode())[0 if number else 1 :],
            payloads=(),
        )
        counter += 1
        data = seal(
            keys.sending(receiver.id, receiver.agreement_key, boot),
            version=1,
            sender=identity.id,
            boot=boot,
            counter=counter,
            introduction=alive.encode() if number == 0 else b"",
            body=encode_body(body),
        )
        out = node.step(world.now, DatagramReceived(source=("10.0.0.9", 7946), data=data))
        opened += [o.address for o in out if isinstance(o, OpenStream)]
    # 20 s later, an operator asks to join a fourth; and own repair needs streams too
    d = world.node(4)
    out = node.step(world.now + 20, JoinSeeds(request=5, seeds=(d,)))
    assert [o for o in out if isinstance(o, OpenStream)], [o for o in out if isinstance(o, Joined)]
