"""Processes that run tests side by side listen at different addresses, and at ports nobody else gets."""

import errno
import ipaddress
import socket

import pytest

from tests.loopback import network, network_of, reserved_port

WORKERS = ["", *(f"gw{number}" for number in range(255))]


def test_no_two_processes_and_no_two_modules_share_a_network() -> None:
    networks = [network_of(module, worker) for module in range(63) for worker in WORKERS]
    assert len(set(networks)) == len(networks)
    for each in (networks[0], networks[-1]):
        assert ipaddress.IPv4Address("127.191.255.255") < ipaddress.IPv4Address(f"{each}.1")
        assert ipaddress.IPv4Address(f"{each}.254").is_loopback


@pytest.mark.parametrize(("module", "worker"), [(63, ""), (-1, ""), (0, "gw255")])
def test_what_would_be_no_address_is_refused(module: int, worker: str) -> None:
    with pytest.raises(AssertionError):
        network_of(module, worker)


def test_a_process_is_told_by_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    alone = network(4)
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    assert (alone, network(4)) == ("127.196.0", "127.196.2")


def test_a_reserved_port_is_closed_and_for_who_knows_it() -> None:
    with reserved_port() as port, socket.socket() as stranger, socket.socket() as caller:
        assert caller.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        with pytest.raises(OSError, match="Address already in use"):
            stranger.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)), socket.socket() as another:
            assert another.connect_ex(("127.0.0.1", port)) == 0
