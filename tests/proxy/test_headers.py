"""What policies may not write and cannot see: the names, against what the planes do with them."""

from proxy.embedded.field_lines import STEERING
from proxy.embedded.heads import _UNTOUCHABLE
from proxy.headers import CONNECTION_FIELDS, FORWARDED_CERT_SPELLINGS, UNWRITABLE


def test_what_the_embedded_plane_refuses_to_write_is_refused_in_policies() -> None:
    assert {each.decode() for each in _UNTOUCHABLE} <= UNWRITABLE


def test_of_what_steers_a_connection_rules_see_what_is_asked_of_it_and_nothing_else() -> None:
    seen = {"host", "content-length", "expect", "upgrade"}
    assert {each.decode() for each in STEERING} - seen == CONNECTION_FIELDS


def test_the_forwarded_certificate_is_known_in_all_spellings() -> None:
    assert {"x-forwarded-client-cert", "x_forwarded_client_cert", "x-forwarded_client-cert"} < (
        FORWARDED_CERT_SPELLINGS
    )
    assert len(FORWARDED_CERT_SPELLINGS) == 8
