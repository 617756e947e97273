"""Routing: Gateway API's precedence and matching facts, host names, weights, rewrites."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.route import MatchedRule, compile_destination, compile_rules
from proxy.snapshot import (
    Backend,
    Destination,
    HeaderMatch,
    Redirect,
    Rewrite,
    RouteMatch,
    RouteRule,
    StringMatch,
)


def path(kind: str, value: str) -> StringMatch:
    return StringMatch(kind={"prefix": "prefix_path"}.get(kind, kind), value=value)


def values(**wanted: str) -> tuple[HeaderMatch, ...]:
    return tuple(
        HeaderMatch(name=name, value=StringMatch(kind="exact", value=value)) for name, value in wanted.items()
    )


def rule(name: str, *matches: RouteMatch, **changes: Any) -> RouteRule:
    return RouteRule(
        name=name, matches=matches or (RouteMatch(),), backends=(Backend(cluster=name),), **changes
    )


def taken(
    rules: list[RouteRule], method: str = "GET", to: str = "/", query: str = "", **headers: str
) -> str | None:
    found = compile_rules(rules).match(method, to, query, headers)
    return None if found is None else found.rule.name


def prefix(value: str, **conditions: Any) -> RouteMatch:
    return RouteMatch(path=path("prefix", value), **conditions)


@pytest.mark.parametrize(
    ("value", "matching", "other"),
    [
        ("/v2", ["/v2", "/v2/", "/v2/a/b"], ["/v2example", "/", "/V2", "/a/v2"]),
        ("/v2/", ["/v2", "/v2/", "/v2/a"], ["/v2example"]),
        ("/a/b", ["/a/b", "/a/b/c"], ["/a", "/a/bc"]),
        ("/", ["/", "/anything/at/all"], []),
    ],
)
def test_a_prefix_goes_by_segment(value: str, matching: list[str], other: list[str]) -> None:
    rules = [rule("r", prefix(value))]
    assert [taken(rules, to=each) for each in matching] == ["r"] * len(matching)
    assert [taken(rules, to=each) for each in other] == [None] * len(other)


def test_an_exact_path_is_the_whole_path() -> None:
    rules = [rule("r", RouteMatch(path=path("exact", "/a")))]
    assert taken(rules, to="/a") == "r"
    assert taken(rules, to="/a/") is None


# Each pair: the first must win over the second, whichever stands first.
PRECEDENCE = [
    ("exact over a longer prefix elsewhere", RouteMatch(path=path("exact", "/a/b")), prefix("/a/b")),
    ("exact over regex", RouteMatch(path=path("exact", "/a/b")), RouteMatch(path=path("regex", "/a/.*"))),
    ("the longer prefix", prefix("/a/b"), prefix("/a")),
    ("a prefix over regex", prefix("/a"), RouteMatch(path=path("regex", "/a/.*"))),
    ("regex over the catch-all", RouteMatch(path=path("regex", "/a/.*")), RouteMatch()),
    ("the longer regex", RouteMatch(path=path("regex", "/a/[b]")), RouteMatch(path=path("regex", "/a/."))),
    ("path over method and headers", prefix("/a"), RouteMatch(method="GET", headers=values(x="1", y="2"))),
    ("method over headers", RouteMatch(method="GET"), RouteMatch(headers=values(x="1", y="2"))),
    ("more headers", RouteMatch(headers=values(x="1", y="2")), RouteMatch(headers=values(x="1"))),
    ("headers over query", RouteMatch(headers=values(x="1")), RouteMatch(query=values(q="1", r="2"))),
    ("more query parameters", RouteMatch(query=values(q="1", r="2")), RouteMatch(query=values(q="1"))),
    ("any condition over none", RouteMatch(query=values(q="1")), RouteMatch()),
]


@pytest.mark.parametrize(
    ("better", "worse"), [each[1:] for each in PRECEDENCE], ids=[each[0] for each in PRECEDENCE]
)
def test_precedence(better: RouteMatch, worse: RouteMatch) -> None:
    for rules in (
        [rule("better", better), rule("worse", worse)],
        [rule("worse", worse), rule("better", better)],
    ):
        assert taken(rules, "GET", "/a/b", "q=1&r=2", x="1", y="2") == "better"


def test_precedence_is_between_matches_not_rules() -> None:
    rules = [rule("one", prefix("/a"), prefix("/x/y")), rule("two", prefix("/a/b"), prefix("/x"))]
    assert taken(rules, to="/a/b") == "two"
    assert taken(rules, to="/x/y") == "one"


def test_a_tie_goes_to_the_rule_given_first() -> None:
    rules = [rule("one", prefix("/a")), rule("two", prefix("/a"))]
    assert taken(rules, to="/a") == "one"
    assert taken(rules[::-1], to="/a") == "two"


def test_a_better_match_that_does_not_hold_gives_way() -> None:
    rules = [
        rule("exact", RouteMatch(path=path("exact", "/a/b"), method="POST")),
        rule("long", prefix("/a/b", headers=values(env="test"))),
        rule("short", prefix("/a")),
    ]
    assert taken(rules, "POST", "/a/b") == "exact"
    assert taken(rules, "GET", "/a/b", env="test") == "long"
    assert taken(rules, "GET", "/a/b") == "short"
    assert taken(rules, "GET", "/b") is None


def test_all_conditions_of_a_match_must_hold() -> None:
    match = RouteMatch(path=path("prefix", "/a"), method="GET", headers=values(x="1"), query=values(q="1"))
    rules = [rule("r", match)]
    assert taken(rules, "GET", "/a", "q=1", x="1") == "r"
    assert taken(rules, "POST", "/a", "q=1", x="1") is None
    assert taken(rules, "GET", "/b", "q=1", x="1") is None
    assert taken(rules, "GET", "/a", "q=2", x="1") is None
    assert taken(rules, "GET", "/a", "q=1", x="2") is None
    assert taken(rules, "GET", "/a", "q=1") is None


@pytest.mark.parametrize(
    ("kind", "value", "yes", "no"),
    [
        ("exact", "v", ["v"], ["V", "v2", ""]),
        ("prefix", "v", ["v", "v2"], ["xv"]),
        ("suffix", "v", ["v", "xv"], ["v2"]),
        ("regex", "v[0-9]+", ["v1", "v22"], ["v", "xv1", "v1x"]),
        ("present", "", ["", "x"], []),
        ("prefix_path", "/v/", ["/v", "/v/x"], ["/vx"]),
    ],
)
def test_string_matches_of_headers(kind: str, value: str, yes: list[str], no: list[str]) -> None:
    match = RouteMatch(headers=(HeaderMatch(name="h", value=StringMatch(kind=kind, value=value)),))
    assert [taken([rule("r", match)], h=each) for each in yes] == ["r"] * len(yes)
    assert [taken([rule("r", match)], h=each) for each in no] == [None] * len(no)
    assert taken([rule("r", match)]) is None


def test_query_parameters_are_decoded_and_the_first_value_counts() -> None:
    rules = [rule("r", RouteMatch(query=values(q="a b&c")))]
    assert taken(rules, query="x=1&q=a+b%26c") == "r"
    assert taken(rules, query="q=no&q=a+b%26c") is None
    assert taken(rules, query="q") is None


def test_of_two_matches_on_one_header_the_first_counts() -> None:
    match = RouteMatch(headers=(*values(h="one"), *values(h="two")))
    assert taken([rule("r", match)], h="one") == "r"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api.example.com", "exact"),
        ("API.example.com.:8080", "exact"),
        ("x.example.com", "wild"),
        ("x.y.example.com", "wild"),
        ("x.test.example.com", "wilder"),
        ("example.com", "any"),
        ("notexample.com", "any"),
        ("[::1]:80", "any"),
        ("", "any"),
    ],
)
def test_the_longest_host_name_wins_over_paths(host: str, expected: str) -> None:
    rules = [
        rule("any", RouteMatch(path=path("exact", "/"))),
        rule("wild", hostnames=("*.example.com",)),
        rule("wilder", hostnames=("*.test.example.com",)),
        rule("exact", hostnames=("api.example.com",)),
    ]
    assert taken(rules, host=host) == expected


def test_a_host_whose_rules_do_not_match_falls_to_wider_ones() -> None:
    rules = [rule("host", prefix("/a"), hostnames=("a.b",)), rule("any")]
    assert taken(rules, to="/x", host="a.b") == "any"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["exact", "prefix", "regex", None]),
            st.lists(st.sampled_from("ab"), max_size=3),
            st.sampled_from(["GET", None]),
        ),
        max_size=6,
    ),
    st.lists(st.sampled_from("ab"), max_size=4),
)
def test_the_index_finds_what_a_plain_search_finds(
    conditions: list[tuple[str | None, list[str], str | None]], segments: list[str]
) -> None:
    rules = []
    for index, (kind, parts, method) in enumerate(conditions):
        value = "/" + "/".join(parts)
        rules.append(
            rule(str(index), RouteMatch(path=None if kind is None else path(kind, value), method=method))
        )
    to = "/" + "/".join(segments)

    def holds(index: int) -> bool:
        kind, parts, _ = conditions[index]
        if kind in {"exact", "regex"}:
            return parts == segments
        return kind is None or segments[: len(parts)] == parts

    def rank(index: int) -> tuple[object, ...]:
        kind, parts, method = conditions[index]
        shape = {"exact": 0, "prefix": 1 if parts else 3, "regex": 2, None: 3}[kind]
        length = -len("/".join(parts)) if shape in {1, 2} else 0
        return shape, length, method is None, index

    candidates = sorted((index for index in range(len(rules)) if holds(index)), key=rank)
    assert taken(rules, "GET", to) == (str(candidates[0]) if candidates else None)


# ---------------------------------------------------------------- backends


def split(*weights: int, count: int = 10_000) -> Counter[str]:
    backends = tuple(Backend(cluster=f"c{index}", weight=weight) for index, weight in enumerate(weights))
    found = compile_rules([replace(rule("r"), backends=backends)]).match("GET", "/", "", {})
    assert found is not None
    rng = random.Random(9)
    return Counter(backend.cluster for _ in range(count) if (backend := found.choose(rng)))


def test_weights_are_shares_and_zero_is_none() -> None:
    found = split(90, 10, 0)
    assert found["c0"] == pytest.approx(9000, rel=0.03)
    assert found["c1"] == pytest.approx(1000, rel=0.15)
    assert "c2" not in found


def test_one_weight_takes_all_and_no_weight_takes_nothing() -> None:
    assert split(0, 5) == {"c1": 10_000}
    assert split(0, 0) == {}
    assert split() == {}


# ---------------------------------------------------------------- paths that change


@pytest.mark.parametrize(
    ("matched", "replacement", "to", "expected"),
    [
        # The table of the Gateway API's HTTPPathModifier.
        ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz", "/foo/bar", "/xyz/bar"),
        ("/foo/", "/xyz/", "/foo/bar", "/xyz/bar"),
        ("/foo", "/xyz", "/foo", "/xyz"),
        ("/foo/", "/xyz", "/foo", "/xyz"),
        ("/foo", "/xyz", "/foo/", "/xyz/"),
        ("/foo", "/", "/foo/bar", "/bar"),
        ("/foo", "/", "/foo", "/"),
        ("/", "/xyz", "/bar", "/xyz/bar"),
        ("/", "/xyz", "/", "/xyz/"),
    ],
)
def test_replacing_the_matched_prefix(matched: str, replacement: str, to: str, expected: str) -> None:
    rewriting = rule("r", prefix(matched), rewrite=Rewrite(path_prefix=replacement))
    redirecting = rule("r", prefix(matched), redirect=Redirect(path_prefix=replacement))
    found: list[MatchedRule | None] = [
        compile_rules([each]).match("GET", to, "", {}) for each in (rewriting, redirecting)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].rewritten_path(to) == expected
    assert found[0].redirected_path(to) == to
    assert found[1].redirected_path(to) == expected
    assert found[1].rewritten_path(to) == to


def test_replacing_the_whole_path_and_nothing() -> None:
    found = compile_rules([rule("r", rewrite=Rewrite(path="/new"))]).match("GET", "/old", "", {})
    kept = compile_rules([rule("r", rewrite=Rewrite(hostname="h"))]).match("GET", "/old", "", {})
    assert found is not None
    assert kept is not None
    assert found.rewritten_path("/old") == "/new"
    assert kept.rewritten_path("/old") == "/old"


# ---------------------------------------------------------------- destinations


def destination(**changes: Any) -> Destination:
    return Destination(
        service="c", namespace="default", port=80, protocol="http", cluster="c.default.mesh:80", **changes
    )  # fmt: skip


def test_a_destination_without_routes_has_no_table() -> None:
    assert compile_destination(destination()).table("default") is None


def test_a_callers_own_rules_replace_those_of_the_service() -> None:
    routes = compile_destination(
        destination(rules=(rule("own"),), routed=True, caller_rules=(("shop", (rule("shop"),)),))
    )
    own, shop = routes.table("default"), routes.table("shop")
    assert own is not None
    assert shop is not None
    assert [each.name for each in own.rules] == ["own"]
    assert [each.name for each in shop.rules] == ["shop"]


def test_a_routed_destination_without_rules_matches_nothing() -> None:
    table = compile_destination(destination(routed=True)).table("default")
    assert table is not None
    assert table.match("GET", "/", "", {}) is None


def test_a_bad_regular_expression_does_not_compile() -> None:
    with pytest.raises(ValueError, match="lookaround"):
        compile_rules([rule("r", RouteMatch(path=path("regex", "(?=a)")))])
