"""Listening sockets: all of what is missing or nothing."""

import socket
from typing import Any

import pytest

from peer.sockets import BindError, ListeningSockets, Places
from proxy.snapshot import Listener
from tests.loopback import network

HOST = f"{network(5)}.1"


def upstream(port: int) -> Listener:
    return Listener(name=f"upstream:{port}", kind="upstream", caller="x", destination="y")


@pytest.fixture
def free() -> list[int]:
    """A few ports nobody uses."""
    held = [socket.socket() for _ in range(4)]
    for each in held:
        each.bind((HOST, 0))
    ports = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return ports


@pytest.fixture
def sockets(free: list[int]) -> Any:
    made = ListeningSockets(Places(bind=HOST, loopback=HOST, inbound_port=free[2], outbound_port=free[3]))
    yield made
    made.close()


def reachable(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((HOST, port)) == 0


def test_a_port_in_use_opens_nothing_and_is_named(sockets: ListeningSockets, free: list[int]) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, free[1]))
        taken.listen()
        words = f"upstream port {free[1]} cannot be opened on {HOST}: Address already in use"
        with pytest.raises(BindError, match=words):
            sockets.open([upstream(free[0]), upstream(free[1])])
        assert not reachable(free[0])
    assert set(sockets.open([upstream(free[0]), upstream(free[1])])) == {
        f"upstream:{free[0]}", f"upstream:{free[1]}"
    }  # fmt: skip
    assert reachable(free[0])


def test_what_is_open_stays_the_same_socket(sockets: ListeningSockets, free: list[int]) -> None:
    first = sockets.open([upstream(free[0])])
    second = sockets.open([upstream(free[0]), upstream(free[0]), upstream(free[1])])
    assert second[f"upstream:{free[0]}"] is first[f"upstream:{free[0]}"]
    sockets.keep_only([upstream(free[1])])
    assert not reachable(free[0])
    assert reachable(free[1])


def test_places_of_the_kinds(sockets: ListeningSockets, free: list[int]) -> None:
    opened = sockets.open(
        [Listener(name="inbound", kind="inbound"), Listener(name="outbound", kind="outbound")]
    )
    assert opened["inbound"].getsockname() == (HOST, free[2])
    assert opened["outbound"].getsockname() == (HOST, free[3])
    sockets.close()
    assert not reachable(free[2])
