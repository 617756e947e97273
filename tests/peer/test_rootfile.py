"""The line of roots on disk, and in a greeting: verified step by step, bounded, and no obstacle where it is damaged."""

from typing import Any

import msgpack
import pytest

from peer.io.keys import KeyFile, Keys
from peer.io.stream import Hello, StreamError, decode_hello, encode_hello
from peer.rootfile import load_roots, store_roots, told_roots
from tests.trust.rolled import DOMAIN, first_certificate, rollover, roots
from trust.ceremony.statement import pack_many
from trust.errors import SvidError
from trust.roots import ROLLOVERS_MAX


@pytest.fixture
def keys(tmp_path: Any) -> Keys:
    return Keys.open(tmp_path)


def test_a_line_comes_back_with_its_conflicts(keys: Keys) -> None:
    line = roots(rollover(0, 1), rollover(1, 2))
    line.add(rollover(0, 3))
    store_roots(keys, line)
    again = load_roots(keys, first_certificate(), DOMAIN)
    assert again.line == line.line
    assert again.conflicts == line.conflicts


def test_a_line_of_one_needs_no_file(keys: Keys) -> None:
    store_roots(keys, roots())
    assert keys.read(KeyFile.ROOTS) is None
    assert load_roots(keys, first_certificate(), DOMAIN).line == roots().line


def test_what_is_damaged_or_not_true_is_left_out_and_comes_again(keys: Keys, caplog: Any) -> None:
    good = rollover(0, 1).encode()
    for data, length in (
        (b"junk", 1),
        (pack_many([good, b"junk"]), 2),
        (pack_many([good, rollover(2, 3).encode()]), 2),
        (pack_many([good] * 99), 1),
    ):
        keys.write(KeyFile.ROOTS, data)
        assert len(load_roots(keys, first_certificate(), DOMAIN)) == length
        assert "roots_unreadable" in caplog.text
        caplog.clear()
    with pytest.raises(SvidError):
        load_roots(keys, b"junk", DOMAIN)


def test_a_full_disk_does_not_keep_a_peer_from_following(keys: Keys, caplog: Any) -> None:
    keys.path(KeyFile.ROOTS).mkdir()
    assert not told_roots(keys, roots(rollover(0, 1)))
    assert "roots_not_stored" in caplog.text


def test_the_longest_line_fits_into_a_greeting() -> None:
    line = tuple(rollover(number, number + 1).encode() for number in range(ROLLOVERS_MAX))
    hello = Hello(
        root_certificate=first_certificate(), issues=True, signers=(("127.0.0.1", 1),), rollovers=line
    )
    assert decode_hello(encode_hello(hello)) == hello


def test_a_greeting_of_an_earlier_version_names_no_rollover_and_of_a_later_one_more() -> None:
    plain = [[1, 1], first_certificate(), True, []]
    assert decode_hello(msgpack.packb(plain)).rollovers == ()
    assert decode_hello(msgpack.packb([*plain, [b"one"], "more"])).rollovers == (b"one",)
    for odd in ("text", [1], ["text"], {}):
        with pytest.raises(StreamError, match="no list"):
            decode_hello(msgpack.packb([*plain, odd]))
