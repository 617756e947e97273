"""What the admin API tells, where that is more than what it was told."""

from dataclasses import replace

from peer.operations import _service
from tests.peer.meshview import instance


def test_the_address_of_a_service_is_one_to_connect_to() -> None:
    cart = instance("cart")
    assert _service(replace(cart, host="fd00::2", inbound_port=15006))["address"] == "[fd00::2]:15006"
    assert _service(replace(cart, host="10.0.0.2", inbound_port=15006))["address"] == "10.0.0.2:15006"
