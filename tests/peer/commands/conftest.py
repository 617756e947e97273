"""Fixtures of the command tests: a served peer, and command lines against it."""

import pytest

from tests.peer.fakepeer import ROUTE, Gossamer, ServedPeer


@pytest.fixture
def served(tmp_path):
    with ServedPeer(tmp_path) as peer:
        yield peer


@pytest.fixture
def gossamer(served, capsys, monkeypatch) -> Gossamer:
    return Gossamer(served, capsys, monkeypatch)


@pytest.fixture
def route(tmp_path) -> str:
    path = tmp_path / "canary.yaml"
    path.write_text(ROUTE)
    return str(path)
