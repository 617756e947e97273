"""Authors' keys: made once, kept private, and what is signed with them."""

import stat

from peer.authored import ANNOTATION, read_claim
from tests.peer.fakepeer import ROUTE


def test_a_key_is_made_once_and_nobody_else_may_read_it(gossamer, tmp_path):
    file = tmp_path / "me.key"
    made = gossamer("author", "create", str(file))
    assert made.code == 0
    assert len(bytes.fromhex(made.out.strip())) == 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() not in made.out
    assert gossamer("author", "show", str(file)).out == made.out
    assert gossamer("author", "show", str(file), "-o", "json").data == {"author": made.out.strip()}
    kept = file.read_text()
    again = gossamer("author", "create", str(file))
    assert (again.code, file.read_text()) == (2, kept)
    file.chmod(0o640)
    shown = gossamer("author", "show", str(file))
    assert (shown.code, "chmod 600" in shown.err) == (2, True)


def test_what_is_no_key_is_named_and_never_shown(gossamer, tmp_path):
    file = tmp_path / "me.key"
    for text in ("", "secret words", "ab" * 31, "ab" * 33, "g" * 64):
        file.write_text(text)
        file.chmod(0o600)
        ended = gossamer("author", "show", str(file))
        assert (ended.code, "is not an author's key" in ended.err) == (2, True)
        assert not text or text not in ended.err
    assert gossamer("author", "show", str(tmp_path / "none")).code == 2


def test_apply_signs_every_document(gossamer, served, route, tmp_path):
    file = tmp_path / "me.key"
    key = gossamer("author", "create", str(file)).out.strip()
    assert gossamer("apply", "-f", route, "--author-key", str(file)).code == 0
    (documents, *_) = served.api.calls[-1][1]
    claim = read_claim(documents[0]["metadata"]["annotations"][ANNOTATION])
    assert claim.key.hex() == key
    assert ANNOTATION not in ROUTE
