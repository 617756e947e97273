"""Certificates on disk: what comes back, and that damage means nothing worse than asking again."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.certificates import load_certificates, save_certificates
from peer.io.keys import KeyFile, Keys
from trust.identity import spiffe_node, spiffe_workload
from trust.tls import Caller

DOMAIN = "cluster.local"


@pytest.fixture
def keys(tmp_path: Any) -> Keys:
    return Keys.open(tmp_path)


def two(live: Any) -> list[Any]:
    person = live.member(2)
    shop = spiffe_workload(DOMAIN, "default", "shop")
    return [live.svid(person, spiffe_node(DOMAIN, person.identity.id)), live.svid(person, shop, ttl_s=100)]


def test_they_come_back_as_they_were(live: Any, keys: Keys) -> None:
    held = two(live)
    save_certificates(keys, held)
    assert load_certificates(keys, live.bundle, live.now()) == held
    assert keys.path(KeyFile.CERTIFICATES).stat().st_mode & 0o777 == 0o600


def test_what_has_expired_does_not(live: Any, keys: Keys) -> None:
    held = two(live)
    save_certificates(keys, held)
    assert load_certificates(keys, live.bundle, live.now() + 200) == held[:1]
    assert load_certificates(keys, live.bundle, live.now() + 4000) == []


def test_no_file_is_no_certificate(live: Any, keys: Keys) -> None:
    assert load_certificates(keys, live.bundle, live.now()) == []


def test_those_of_another_mesh_mean_nothing(live: Any, keys: Keys) -> None:
    other = type(live)(b"another root")
    save_certificates(keys, two(other))
    assert load_certificates(keys, live.bundle, live.now()) == []


def test_a_key_that_is_not_the_certificates_is_found_before_it_is_shown(live: Any, keys: Keys) -> None:
    one, other = two(live)
    rows = [[one.chain_pem, other.key_pem]]
    keys.write(KeyFile.CERTIFICATES, msgpack.packb(rows))
    assert load_certificates(keys, live.bundle, live.now()) == []


@pytest.mark.parametrize(
    "rows",
    [
        1,
        "x",
        {},
        [1],
        [[1, 2]],
        [["a", "b"]],
        [[b"", b""]],
        [[b"a", b"b", b"c"]],
        [[b"\xff", b"\xff"]],
        {"a": "b"},
    ],
)
def test_a_file_of_another_shape_means_nothing(live: Any, keys: Keys, rows: Any) -> None:
    keys.write(KeyFile.CERTIFICATES, msgpack.packb(rows))
    assert load_certificates(keys, live.bundle, live.now()) == []


def test_a_file_others_can_read_is_not_trusted(live: Any, keys: Keys) -> None:
    save_certificates(keys, two(live))
    keys.path(KeyFile.CERTIFICATES).chmod(0o644)
    assert load_certificates(keys, live.bundle, live.now()) == []


@pytest.fixture(scope="session")
def known(live_mesh: Any) -> Any:
    live = live_mesh()
    return live, two(live)


@given(data=st.data())
def test_any_damage_means_nothing_or_no_change(tmp_path_factory: Any, known: Any, data: Any) -> None:
    live, held = known
    keys = Keys.open(tmp_path_factory.mktemp("keys"))
    save_certificates(keys, held)
    whole = keys.read(KeyFile.CERTIFICATES)
    place = data.draw(st.integers(0, len(whole) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=20))
    keys.write(KeyFile.CERTIFICATES, whole[:place] + patch + whole[place + len(patch) :])
    for svid in load_certificates(keys, live.bundle, live.now()):
        assert svid.identity in {each.identity for each in held}
        Caller(certificate=svid, bundle=live.bundle)  # the two halves still fit


def test_a_disk_that_is_full_is_reported_and_no_more(
    live: Any, keys: Keys, caplog: Any, monkeypatch: Any
) -> None:
    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    save_certificates(keys, two(live))
    assert "certificates_unsaved" in caplog.text
