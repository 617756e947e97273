"""Files given with `-f`: every fault is named with its file, and nothing is sent."""

import pytest

from tests.peer.fakepeer import ROUTE, SERVICE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ROUTE.replace("rules:", "ruels:"), "spec.ruels: unknown field (did you mean rules?)"),
        (ROUTE.replace("HTTPRoute", "HTTPRuote"), "unknown kind"),
        ("[", "not valid YAML"),
        ("", "holds no resource"),
        (SERVICE, "holds services; register them with: gossamer service register -f"),
        (f"{ROUTE}---{ROUTE}", "is in the file twice"),
    ],
)
def test_an_invalid_file_is_named_and_never_sent(gossamer, served, tmp_path, text, words):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    ended = gossamer("apply", "-f", str(path))
    assert ended.code == 2
    assert ended.err.startswith(f"error: {path}: ")
    assert words in ended.err
    assert served.api.calls == []


def test_all_faults_of_all_files_are_told_at_once(gossamer, served, tmp_path, route):
    (tmp_path / "x.yaml").write_text(
        ROUTE.replace("weight: 90", "weight: -1").replace("weight: 10", "weight: x")
    )
    ended = gossamer(
        "apply", "-f", str(tmp_path / "x.yaml"), "-f", str(tmp_path / "missing.yaml"), "-f", route
    )
    assert ended.code == 2
    assert [line.split(": ")[0] for line in ended.err.splitlines()] == ["error"]
    assert "missing.yaml: cannot be read: No such file or directory" in ended.err
    ended = gossamer("apply", "-f", str(tmp_path / "x.yaml"), "-f", route)
    assert len(ended.err.splitlines()) == 2
    assert served.api.calls == []


def test_one_resource_in_two_files_is_refused(gossamer, route, tmp_path):
    (tmp_path / "again.yaml").write_text(ROUTE)
    ended = gossamer("apply", "-f", route, "-f", str(tmp_path / "again.yaml"))
    assert (ended.code, ended.err) == (
        2,
        f"error: {tmp_path}/again.yaml: HTTPRoute default/canary: is in {route} too\n",
    )
