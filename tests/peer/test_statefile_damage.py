"""Whatever is in the files beside the database, a peer starts: it reads them, or says what is wrong and goes on.

Any text, any JSON, and each file's own content with one value of it replaced: by values JSON can write and nobody
expects, too. `keys/` has tests of its own (test_certificates.py, test_rootfile.py, test_custody.py).
"""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer import asked, contacts, seniority, tokens
from peer.asked import AskedKeys
from peer.contacts import CONTACTS_MAX, Contacts
from peer.seniority import Seniority
from peer.tokens import SpentTokens
from proxy.resources.resource import ResourceError
from tests.peer.test_local import Host, document
from trust.identity import ID_BYTES, format_id
from trust.invitation import TOKEN_ID_BYTES

NOW = 1_000.0
DEEP = 20_000  # deeper than any reader's stack


def read_contacts(directory: Path) -> None:
    kept = Contacts.of(directory).load()
    assert len(kept) <= CONTACTS_MAX
    assert all(0 < port < 65536 for _, port in kept)


def read_tokens(directory: Path) -> None:
    spent = SpentTokens.of(directory)
    for use in spent.load(NOW):
        assert (len(use.token_id), len(use.node)) == (TOKEN_ID_BYTES, ID_BYTES)
        assert NOW < use.expires_at < 2**63
    spent.add([], NOW)  # what was read can be written


def read_asked(directory: Path) -> None:
    keys = AskedKeys.of(directory, NOW, first_start=False)
    keys.add(b"key", NOW)
    assert not math.isnan(keys._since)  # else nothing would be this node's own


def read_seniority(directory: Path) -> None:
    assert all(type(at) is int and at >= 0 for at in Seniority.of(directory, dict)._since.values())


READERS: dict[str, tuple[str, Callable[[Path], None], Any]] = {
    "contacts": (contacts.FILE_NAME, read_contacts, [["10.0.0.1", 7946], ["2001:db8::1", 1]]),
    "tokens": (tokens.FILE_NAME, read_tokens, [["01" * TOKEN_ID_BYTES, "02" * ID_BYTES, 2000]]),
    "asked": (asked.FILE_NAME, read_asked, {"since": 5.0, "keys": {"ab" * 32: 2000.0}}),
    "seniority": (seniority.FILE_NAME, read_seniority, {format_id(bytes(ID_BYTES)): 5}),
}

odd = st.sampled_from([float("inf"), float("-inf"), float("nan"), 10**400, -(10**400), 2**64, "\ud800", "\0"])
values = st.recursive(
    st.one_of(odd, st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)
hostile = st.one_of(
    st.text(max_size=40),
    values.map(json.dumps),
    st.sampled_from(["[" * DEEP, '{"keys":' * DEEP, "1" * 5000, "[1e999]", "-Infinity", '{"a": 1}', ""]),
)


@st.composite
def changed(draw: st.DrawFn, content: Any) -> str:
    """The content with one value in it replaced."""
    tree = copy.deepcopy(content)
    at = tree
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw(st.sampled_from(keys))
        if not isinstance(at[key], dict | list) or draw(st.booleans()):
            at[key] = draw(values)
            return json.dumps(tree)
        at = at[key]


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_whatever_the_file_holds_it_is_read_or_reported(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    file_name, read, content = READERS[name]
    directory = tmp_path_factory.mktemp("damage", numbered=True)
    text = data.draw(st.one_of(hostile, changed(content)))
    (directory / file_name).write_text(text, errors="surrogatepass")
    read(directory)


@pytest.mark.parametrize("name", READERS)
def test_what_each_test_changes_is_good(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file_name, read, content = READERS[name]
    (tmp_path / file_name).write_text(json.dumps(content))
    read(tmp_path)
    assert caplog.records == []


@given(text=st.one_of(hostile, changed([document()]), values.map(lambda value: json.dumps([value]))))
def test_whatever_was_registered_is_taken_up_or_refused_with_words(text: str) -> None:
    host = Host(None)
    try:
        host.local.restore(text, {})
    except ResourceError:
        assert host.local.services == {}
