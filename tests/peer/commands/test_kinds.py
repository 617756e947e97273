"""The kinds as people type them."""

import pytest

from peer.commands.kinds import KINDS, read_kind
from peer.commands.options import Failure


def test_the_kinds_are_those_of_the_schemas():
    from proxy.resources import KINDS as SCHEMAS
    from proxy.resources import canonical_kind

    assert tuple(SCHEMAS) == KINDS
    for kind in KINDS:
        for text in (kind, kind.lower(), f"{kind}s", f"{kind.lower()}.example.org"):
            assert read_kind(text) == kind == canonical_kind(text)
    with pytest.raises(Failure):
        read_kind("nothing")
