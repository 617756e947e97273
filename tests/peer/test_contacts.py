"""Contacts: kept beside the database, believed only as far as they are addresses."""

import random
from typing import Any

import pytest

from peer.contacts import CONTACTS_MAX, FILE_NAME, Contacts, resolve


class Member:
    def __init__(self, number: int) -> None:
        self.address = (f"10.0.0.{number}", 7946)


def test_a_peer_that_has_met_nobody_has_no_file(tmp_path: Any) -> None:
    contacts = Contacts.of(tmp_path)
    assert not contacts.met
    assert contacts.load() == ()
    contacts.keep_some([], random.Random(1))
    assert not contacts.met


def test_some_of_many_are_kept(tmp_path: Any) -> None:
    contacts = Contacts.of(tmp_path)
    contacts.keep_some([Member(n) for n in range(1, 100)], random.Random(1))
    assert contacts.met
    kept = contacts.load()
    assert len(set(kept)) == CONTACTS_MAX
    contacts.keep_some([], random.Random(1))  # everybody is gone: where they were stays known
    assert contacts.load() == kept
    contacts.keep([("10.0.0.1", 1)])
    assert contacts.load() == (("10.0.0.1", 1),)


@pytest.mark.parametrize(
    "text",
    ["", "{", "7", "null", '"x"', "[1]", '[["a"]]', '[["a", "b"]]', '[["a", 70000]]', '{"a": 1}', "\0"],
)
def test_a_damaged_file_is_nobody_to_ask_but_still_says_that_there_were_others(
    tmp_path: Any, text: str
) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    contacts = Contacts.of(tmp_path)
    assert contacts.load() == ()
    assert contacts.met


async def test_names_are_resolved_and_those_that_do_not_are_named() -> None:
    long = "x" * 70 + ".example"
    found, failed = await resolve(
        [("127.0.0.1", 5), ("localhost", 7), ("no-such-host.invalid", 1), (long, 2)]
    )
    assert ("127.0.0.1", 5) in found
    assert any(port == 7 for _, port in found)
    assert set(failed) == {("no-such-host.invalid", 1), (long, 2)}
    assert all("does not resolve" in reason for reason in failed.values())
