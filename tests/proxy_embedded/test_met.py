"""Which certificates a worker tells of, and how many."""

import ssl
from typing import Any

import pytest

from proxy.embedded import met, plane
from proxy.embedded.ipc import Report
from proxy.embedded.met import MetCertificates
from trust.svid import Svid
from trust.tls import PeerObject


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A connection whose peer showed this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslobject_class = PeerObject
    context.check_hostname = False

    def connection(der: bytes) -> ssl.SSLObject:
        made = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
        assert isinstance(made, PeerObject)
        if der:
            made.peer_der, made.peer = der, Svid.__new__(Svid)
        return made

    return connection


def test_a_certificate_is_told_once_however_often_it_is_met(shown: Any) -> None:
    certificates = MetCertificates()
    for der in (b"one", b"two", b"one", b""):
        certificates.note(shown(der))
    assert certificates.take() == [b"one", b"two"]
    certificates.note(shown(b"one"))
    assert certificates.take() == []


def test_one_report_holds_few_and_the_next_the_rest(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(met, "REPORTED_MAX", 2)
    certificates = MetCertificates()
    for der in (b"1", b"2", b"3"):
        certificates.note(shown(der))
    assert [certificates.take() for _ in range(3)] == [[b"1", b"2"], [b"3"], []]


def test_what_finds_no_place_is_counted_and_told_when_it_is_met_again(
    shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(met, "WAITING_MAX", 1)
    certificates = MetCertificates()
    for der in (b"1", b"2", b"2"):
        certificates.note(shown(der))
    assert (certificates.take(), certificates.untold) == ([b"1"], 2)
    certificates.note(shown(b"2"))
    assert certificates.take() == [b"2"]


def test_the_least_recently_met_is_forgotten_first(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(met, "REMEMBERED_MAX", 2)
    certificates = MetCertificates()
    for der in (b"1", b"2", b"1", b"3"):
        certificates.note(shown(der))
    certificates.take()
    for der in (b"1", b"2"):
        certificates.note(shown(der))
    assert certificates.take() == [b"2"]


def test_what_the_workers_tell_waits_once_and_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane, "MET_MAX", 2)
    both = plane.EmbeddedPlane()
    both._on_report(0, Report(met=(b"1", b"2")))
    both._on_report(1, Report(met=(b"1", b"3")))
    seen = both.observations()
    assert (seen.met, seen.counters) == ((b"1", b"2"), {"certificates_untold": 1})
    assert both.observations().met == ()
