"""The normal form of paths: table of known tricks, and laws."""

import random
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.path import PATH_BYTES_MAX, normalise_path, without_parameters

# Pieces that tricks are made of, so that hypothesis finds their combinations.
TRICKS = st.lists(
    st.sampled_from(
        [
            *(
                "/",
                "//",
                "\\",
                ".",
                "..",
                "%2e",
                "%2E%2e",
                "%2f",
                "%2F",
                "%5c",
                "%25",
                "%252e",
                "a",
                "B",
                ";",
                "..;",
            ),
            *(
                "%00",
                "%",
                "%4",
                "%zz",
                "?",
                "#",
                " ",
                "admin",
                "%61dmin",
                "!",
                "%21",
                "{",
                "%7B",
                "%c3%a9",
                "...",
                "é",
            ),
        ]
    ),
    max_size=12,
).map(lambda parts: "/" + "".join(parts))
PATHS = st.one_of(TRICKS, st.text(st.characters(max_codepoint=255), max_size=30).map(lambda text: "/" + text))


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("/", "/"),
        ("/a/b.txt", "/a/b.txt"),
        ("/a/", "/a/"),
        ("//a///b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/.", "/a/"),
        ("/../../etc", "/etc"),
        ("/public/%2e%2e/admin", "/admin"),
        ("/public%2F..%2fadmin", "/admin"),
        ("/public\\..\\admin", "/admin"),
        ("/public/%5c../admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("/a%7eb%2Dc", "/a~b-c"),
        ("/adm%21n", "/adm!n"),
        ("/a%3bb", "/a%3Bb"),
        ("/a;b", "/a;b"),
        ("/%c3%a9", "/%C3%A9"),
        ("/\xc3\xa9", "/%C3%A9"),
        ("/{x}", "/%7Bx%7D"),
        ("/%252e%252e/x", "/%252e%252e/x"),
        ("/.well-known/...", "/.well-known/..."),
    ],
)
def test_spellings_of_a_path_become_one(raw: str, normal: str) -> None:
    assert normalise_path(raw) == normal


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "*",
        "a/b",
        "/a b",
        "/a\x00",
        "/a%00",
        "/%",
        "/%4",
        "/%zz",
        "/a?b",
        "/a#b",
        "/..;/admin",
        "/.;x",
        "/a\x7f",
        "/\u20ac",
    ],
)
def test_what_has_no_one_meaning_is_refused(raw: str) -> None:
    assert normalise_path(raw) is None


def test_a_path_beyond_the_bound_is_refused() -> None:
    assert normalise_path("/." + "a" * PATH_BYTES_MAX) is None


@given(PATHS)
def test_normalising_twice_changes_nothing(raw: str) -> None:
    normal = normalise_path(raw)
    assert normal is None or normalise_path(normal) == normal


@given(PATHS)
def test_the_normal_form_has_no_trick_left(raw: str) -> None:
    normal = normalise_path(raw)
    if normal is None:
        return
    assert normal.startswith("/")
    assert "//" not in normal
    assert "\\" not in normal
    assert not {".", ".."} & {segment.partition(";")[0] for segment in normal.split("/")}
    decoded = unquote_to_bytes(normal).decode("latin-1")
    assert "\x00" not in decoded
    # A server that decodes once finds the same segments.
    assert decoded.count("/") == normal.count("/")
    assert not {".", ".."} & set(decoded.split("/"))


@given(
    st.lists(st.text("aB.-_~!$&'()*+,=:@\xe9%", min_size=1, max_size=5), min_size=1, max_size=4), st.randoms()
)
def test_escaping_any_character_of_a_segment_changes_nothing(segments: list[str], rng: random.Random) -> None:
    def spelled(text: str, *, all_of_it: bool) -> str:
        return "".join(
            quote(each, safe="", encoding="latin-1")
            if each == "%" or all_of_it or rng.random() < 0.5
            else each
            for each in text
        )

    def path(*, all_of_it: bool) -> str:
        # quote() leaves unreserved characters alone; escape those by hand in the thorough spelling
        return "/" + "/".join(
            "".join(f"%{ord(each):02x}" if all_of_it else spelled(each, all_of_it=False) for each in segment)
            for segment in segments
        )

    assert normalise_path(path(all_of_it=True)) == normalise_path(path(all_of_it=False))


@pytest.mark.parametrize(
    ("path", "bare"),
    [
        ("/a", "/a"), ("/a;b", "/a"), ("/a;b=c/d;e;f", "/a/d"), ("/;x/a", "/a"), ("/a/;x/b", "/a/b"), ("/a/;x", "/a/"),
        ("/;", "/"), ("/a%3Bb", "/a%3Bb"), ("/;/;/;", "/"),
    ],
)  # fmt: skip
def test_parameters_are_no_part_of_a_segment_to_some(path: str, bare: str) -> None:
    assert without_parameters(path) == bare


@given(PATHS)
def test_a_path_without_its_parameters_is_normal(raw: str) -> None:
    normal = normalise_path(raw)
    if normal is not None:
        bare = without_parameters(normal)
        assert normalise_path(bare) == bare
        assert ";" not in bare
        assert without_parameters(bare) == bare
