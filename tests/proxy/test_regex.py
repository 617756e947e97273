"""The linear regular expressions: Python's `re` is the oracle where both take the pattern."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.regex import PATTERN_LENGTH_MAX, TRANSITIONS_MAX, LinearRegex, RegexError

ATOMS = st.sampled_from(
    ["a", "b", "c", "/", ".", "[ab]", "[^a]", "[a-c/]", r"\d", r"\w", r"\W", r"\.", "-", "1"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{0,2}", "{2,}", "*?", "+?"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)
TEXTS = st.text("abc/1.-", max_size=8)


@given(PATTERNS, st.lists(TEXTS, min_size=1, max_size=5))
def test_agrees_with_re_on_whole_texts(pattern: str, texts: list[str]) -> None:
    mine, theirs = LinearRegex(pattern), re.compile(pattern, re.ASCII)
    for text in texts:
        assert mine.matches(text) == (theirs.fullmatch(text) is not None), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("/v[0-9]+/.*", ["/v1/", "/v12/x/y"], ["/v/", "/v1", "x/v1/"]),
        ("^/a$", ["/a"], ["/a/", "/ab"]),
        ("(?i)/Item", ["/item", "/ITEM"], ["/items"]),
        ("(?i)[^a]", ["b"], ["a", "A"]),
        ("(?P<id>[0-9a-f]{8})", ["0123abcd"], ["0123abc", "0123ABCD"]),
        (r"a\x2fb|", ["a/b", ""], ["a"]),
        ("[]a-]+", ["]a-"], ["b"]),
        ("a{2}b{0,1}c{1,}", ["aac", "aabccc"], ["ac", "aab"]),
        (".", ["a", "/"], ["\n", ""]),
    ],
)
def test_facts(pattern: str, yes: list[str], no: list[str]) -> None:
    regex = LinearRegex(pattern)
    assert all(regex.matches(text) for text in yes)
    assert not any(regex.matches(text) for text in no)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a+)+", "a" * 50_000 + "!"),
        ("(/[^/]+)+x", "/a" * 25_000),
        ("(a|a)*b", "a" * 50_000),
        ("(.*,){9}P", "1," * 25_000),
    ],
)
def test_patterns_that_hold_a_backtracking_engine_for_ever_are_quick(pattern: str, text: str) -> None:
    assert not LinearRegex(pattern).matches(text)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", "back-references"),
        ("(?P<x>a)(?P=x)", "back-references"),
        ("a(?=b)", "lookaround"),
        ("(?<!a)b", "lookaround"),
        ("(?s).", "this kind of group"),
        ("a++", "possessive"),
        ("a**", "repeats nothing"),
        ("*a", "repeats nothing"),
        ("(a", "missing ')'"),
        ("a)", "unmatched ')'"),
        ("[a", "missing ']'"),
        ("[b-a]", "wrong way round"),
        ("a{3,2}", "wrong way round"),
        ("a{x}", "must begin a repetition"),
        (r"\bword", r"\b is not supported"),
        (r"\pL", r"\p is not supported"),
        ("[[:alpha:]]", "named character classes"),
        ("a^b", "anchor"),
        ("a\\", "lone backslash"),
        ("(((a{90}){90}){90})", "too large"),
        ("(((){999}){999}){999}", "too large"),
        ("(" * 60 + "a" + ")" * 60, "nested more than"),
        ("a" * (PATTERN_LENGTH_MAX + 1), "at most"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(pattern: str, words: str) -> None:
    with pytest.raises(RegexError, match=re.escape(words)):
        LinearRegex(pattern)


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_a_regex_error(pattern: str) -> None:
    try:
        LinearRegex(pattern).matches(pattern)
    except RegexError:
        pass


def test_the_cache_of_states_is_bounded() -> None:
    regex = LinearRegex("[^x]*")
    text = "".join(chr(0x100 + index) for index in range(2 * TRANSITIONS_MAX))
    assert regex.matches(text)
    assert regex._transitions <= TRANSITIONS_MAX
