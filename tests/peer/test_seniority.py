"""Since when a node has been a member: by its earliest credential, which is kept, whatever becomes of the file."""

from dataclasses import replace
from typing import Any

import pytest

import peer.seniority
from peer.io.statefile import StateFileError
from peer.seniority import FILE_NAME, Seniority
from trust.credential import Credential


@pytest.fixture
def credentials(world: Any) -> dict[bytes, Credential]:
    held = (world.mesh.member(number)[1] for number in range(1, 4))
    return {each.node: each for each in held}


def renewed(credential: Credential, by_s: int) -> Credential:
    return replace(credential, issued_at=credential.issued_at + by_s, expires_at=credential.expires_at + by_s)


def lengthen(credentials: dict[bytes, Credential], by_s: int) -> None:
    for node, each in credentials.items():
        credentials[node] = renewed(each, by_s)


async def test_who_renews_is_as_old_as_before_also_after_a_restart(tmp_path, credentials):
    first = {node: each.issued_at for node, each in credentials.items()}
    held = Seniority.of(tmp_path, lambda: credentials)
    await held.keep()
    lengthen(credentials, 1000)
    held.note()
    assert {node: held.since(each) for node, each in credentials.items()} == first
    again = Seniority.of(tmp_path, lambda: credentials)
    assert {node: again.since(each) for node, each in credentials.items()} == first
    fresh = Seniority.of(tmp_path / "elsewhere", lambda: credentials)
    assert all(fresh.since(each) == each.issued_at for each in credentials.values())


async def test_an_older_credential_that_turns_up_counts_and_is_kept(tmp_path, credentials):
    held = Seniority.of(tmp_path, lambda: credentials)
    node, known = next(iter(credentials.items()))
    credentials[node] = renewed(known, -500)
    held.note()
    assert held.since(known) == known.issued_at - 500
    await held.keep()
    assert Seniority.of(tmp_path, dict).since(known) == known.issued_at - 500


@pytest.mark.parametrize("text", ["{", "[1]", '{"x": 1}', '{"aaaaaaaaaaaaaaaaaaaaaaaaaa": -1}', "\xff"])
def test_a_damaged_file_is_told_and_begun_again(tmp_path, credentials, caplog, text):
    (tmp_path / FILE_NAME).write_text(text, encoding="latin-1")
    (tmp_path / FILE_NAME).chmod(0o600)
    held = Seniority.of(tmp_path, lambda: credentials)
    assert [each.message for each in caplog.records] == ["members_since_unread"]
    assert all(held.since(each) == each.issued_at for each in credentials.values())


async def test_what_cannot_be_written_is_told_and_tried_again(tmp_path, credentials, caplog, monkeypatch):
    held = Seniority.of(tmp_path, lambda: credentials)

    def full(_self: object, _text: str) -> None:
        raise StateFileError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr("peer.io.statefile.StateFile.write", full)
        await held.keep()
    assert [each.message for each in caplog.records] == ["members_since_unwritten"]
    await held.keep()
    assert (tmp_path / FILE_NAME).exists()


def test_so_many_are_noted_and_members_of_now_before_those_of_then(tmp_path, credentials, monkeypatch):
    monkeypatch.setattr(peer.seniority, "KNOWN_MAX", 2)
    nodes = list(credentials)
    shown = nodes[:2]

    def present() -> dict[bytes, Credential]:
        return {node: credentials[node] for node in shown}

    held = Seniority.of(tmp_path, present)
    shown = nodes
    held.note()
    first = dict(credentials)
    lengthen(credentials, 1000)
    noted = [node for node in nodes if held.since(credentials[node]) == first[node].issued_at]
    assert noted == nodes[:2], "who was noted first stays"
    shown = nodes[1:]
    held.note()
    lengthen(credentials, 1000)
    assert held.since(credentials[nodes[2]]) == first[nodes[2]].issued_at + 1000
    assert held.since(credentials[nodes[0]]) == first[nodes[0]].issued_at + 2000, (
        "it is no member and was forgotten"
    )
