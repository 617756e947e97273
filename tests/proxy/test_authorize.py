"""Authorization: Istio's order, its matching of strings, ports and addresses, TCP, dry run, unsettled edits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.authorize import Decision, RequestFacts, compile_authorization
from proxy.snapshot import AppProtocol, Authorization, AuthzPolicy, AuthzRule, Condition, Operation, Source

CART = "spiffe://cluster.local/ns/shop/sa/cart"
NODE = "spiffe://cluster.local/node/abc"


def policy(*rules: AuthzRule, name: str = "default/p", dry_run: bool = False) -> AuthzPolicy:
    return AuthzPolicy(name=name, variants=(rules,), dry_run=dry_run)


def source(**fields: tuple[str, ...]) -> AuthzRule:
    return AuthzRule(sources=(Source(**fields),))


def operation(**fields: Any) -> AuthzRule:
    return AuthzRule(operations=(Operation(**fields),))


def when(key: str, *values: str, not_values: tuple[str, ...] = ()) -> AuthzRule:
    return AuthzRule(conditions=(Condition(key=key, values=values, not_values=not_values),))


def request(**facts: Any) -> RequestFacts:
    given: dict[str, Any] = {
        "principal": CART,
        "ip": "10.1.2.3",
        "port": 80,
        "host": "api",
        "method": "GET",
        "path": "/a",
    } | facts
    return RequestFacts(**given)


def decide(authorization: Authorization, protocol: AppProtocol = "http", **facts: Any) -> Decision:
    return compile_authorization(authorization, protocol).decide(request(**facts))


def matches(rule: AuthzRule, protocol: AppProtocol = "http", **facts: Any) -> bool:
    """Whether the rule matches; a DENY and an ALLOW policy made of it must agree, but for TCP."""
    denied = not decide(Authorization(deny=(policy(rule),)), protocol, **facts).allowed
    allowed = decide(Authorization(allow=(policy(rule),)), protocol, **facts).allowed
    assert protocol == "tcp" or denied == allowed
    return allowed


EVERYTHING, NOTHING = AuthzRule(), source(principals=("nobody",))


@pytest.mark.parametrize(
    ("deny", "allow", "default_deny", "allowed", "decider"),
    [
        ((), (), False, True, ""),
        ((), (), True, False, ""),
        ((), (EVERYTHING,), False, True, "default/allow"),
        ((), (EVERYTHING,), True, True, "default/allow"),
        ((), (NOTHING,), False, False, ""),
        ((EVERYTHING,), (), False, False, "default/deny"),
        ((EVERYTHING,), (EVERYTHING,), False, False, "default/deny"),
        ((NOTHING,), (), False, True, ""),
        ((NOTHING,), (), True, False, ""),
        ((NOTHING,), (EVERYTHING,), True, True, "default/allow"),
        ((NOTHING,), (NOTHING,), False, False, ""),
    ],
)
def test_deny_then_allow_then_the_default(
    deny: tuple[AuthzRule, ...], allow: tuple[AuthzRule, ...], default_deny: bool, allowed: bool, decider: str
) -> None:
    decision = decide(
        Authorization(
            deny=(policy(*deny, name="default/deny"),) if deny else (),
            allow=(policy(*allow, name="default/allow"),) if allow else (),
            default_deny=default_deny,
        )
    )
    assert (decision.allowed, decision.policy, decision.would_allow) == (allowed, decider, allowed)
    assert decision.reason


def test_no_rules_match_nothing_and_an_empty_rule_matches_everything() -> None:
    assert not decide(Authorization(allow=(policy(),))).allowed
    assert decide(Authorization(deny=(policy(),))).allowed
    assert decide(Authorization(allow=(policy(AuthzRule()),))).allowed
    assert not decide(Authorization(deny=(policy(AuthzRule()),))).allowed


def test_one_of_several_allow_policies_is_enough_and_is_named() -> None:
    two = (policy(NOTHING, name="default/a"), policy(EVERYTHING, name="default/b"))
    assert decide(Authorization(allow=two)).policy == "default/b"


@pytest.mark.parametrize(
    ("pattern", "principal", "expected"),
    [
        ("cluster.local/ns/shop/sa/cart", CART, True),
        ("cluster.local/ns/shop/sa/cart", CART + "2", False),
        ("cluster.local/ns/shop/*", CART, True),
        ("*/sa/cart", CART, True),
        ("*", CART, True),
        ("*", "", False),
        ("cluster.local/ns/shop/sa/cart", "cluster.local/ns/shop/sa/cart", True),
        ("CLUSTER.local/ns/shop/sa/cart", CART, False),
        ("cluster.local/ns/*", "", False),
        ("*", NODE, True),
    ],
)
def test_principals(pattern: str, principal: str, expected: bool) -> None:
    assert matches(source(principals=(pattern,)), principal=principal) is expected
    assert matches(source(not_principals=(pattern,)), principal=principal) is not expected


@pytest.mark.parametrize(
    ("namespace", "principal", "expected"),
    [("shop", CART, True), ("sh*", CART, True), ("shop", NODE, False), ("*", NODE, False), ("*", "", False)],
)
def test_namespaces_come_from_the_principal(namespace: str, principal: str, expected: bool) -> None:
    assert matches(source(namespaces=(namespace,)), principal=principal) is expected
    assert matches(when("source.namespace", namespace), principal=principal) is expected


@pytest.mark.parametrize(
    ("block", "ip", "expected"),
    [
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.5.7/16", "10.1.2.3", True),
        ("10.2.0.0/16", "10.1.2.3", False),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "10.1.2.3", False),
        ("0.0.0.0/0", "not an address", False),
    ],
)
def test_ip_blocks(block: str, ip: str, expected: bool) -> None:
    assert matches(source(ip_blocks=(block,)), ip=ip) is expected
    assert matches(source(not_ip_blocks=(block,)), ip=ip) is not expected
    assert matches(when("source.ip", block), ip=ip) is expected


@pytest.mark.parametrize(
    ("pattern", "host", "expected"),
    [
        ("api.example.com", "API.Example.Com", True),
        ("API.example.com", "api.example.com", True),
        ("api.example.com", "api.example.com:8080", True),
        ("api.example.com", "api.example.com.", True),
        ("api.example.com:8080", "api.example.com:8080", True),
        ("api.example.com:8080", "api.example.com", False),
        ("api.example.com:*", "api.example.com:8080", True),
        ("*.example.com", "api.example.com:8080", True),
        ("api.*", "api.example.com", True),
        ("example.com", "api.example.com", False),
        ("*", "x", True),
        ("*", "", False),
        ("[::1]", "[::1]:80", True),
    ],
)
def test_hosts_ignore_case_and_a_port_the_pattern_does_not_name(
    pattern: str, host: str, expected: bool
) -> None:
    assert matches(operation(hosts=(pattern,)), host=host) is expected
    assert matches(operation(not_hosts=(pattern,)), host=host) is not expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/admin", "/admin", True),
        ("/admin", "/admin/", False),
        ("/admin*", "/administrator", True),
        ("/admin/*", "/admin", False),
        ("*/info", "/a/info", True),
        ("*", "/", True),
        ("/Admin", "/admin", False),
    ],
)
def test_paths(pattern: str, path: str, expected: bool) -> None:
    assert matches(operation(paths=(pattern,)), path=path) is expected
    assert matches(operation(not_paths=(pattern,)), path=path) is not expected


def test_methods_and_ports() -> None:
    assert matches(operation(methods=("GET", "HEAD")), method="HEAD")
    assert not matches(operation(methods=("GET",)), method="get")
    assert matches(operation(not_methods=("POST",)))
    assert matches(operation(ports=(80, 443)))
    assert not matches(operation(not_ports=(80,)))
    assert matches(when("destination.port", "80"))
    assert not matches(when("destination.port", not_values=("80",)))


def test_fields_of_one_entry_must_all_hold_and_any_entry_is_enough() -> None:
    both = AuthzRule(
        sources=(Source(principals=("nobody",)), Source(namespaces=("shop",), not_principals=("*/sa/evil",))),
        operations=(Operation(methods=("GET",), paths=("/a",)), Operation(paths=("/b",))),
    )
    assert matches(both)
    assert matches(both, method="POST", path="/b")
    assert not matches(both, method="POST")
    assert not matches(both, principal="spiffe://cluster.local/ns/shop/sa/evil")


def test_conditions() -> None:
    header = when("request.headers[X-User]", "adm*", not_values=("admin2",))
    assert matches(header, headers={"x-user": "admin"})
    assert not matches(header, headers={"x-user": "admin2"})
    assert not matches(header)
    assert matches(when("request.headers[x-user]", not_values=("root",)))
    assert matches(when("source.principal", "*/sa/cart"))
    assert matches(when("connection.sni", "cart.*"), sni="cart.shop.mesh")
    two = AuthzRule(
        conditions=(
            Condition(key="source.namespace", values=("shop",)),
            Condition(key="source.ip", values=("10.9.0.0/16",)),
        )
    )
    assert not matches(two)


def test_an_unknown_condition_or_bad_block_does_not_compile() -> None:
    for rule in (
        when("request.auth.claims[x]", "y"),
        source(ip_blocks=("10.0.0.300",)),
        when("destination.port", "x"),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
            compile_authorization(Authorization(deny=(policy(rule),)))


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_a_port_is_the_services_and_the_applications_too_where_that_restricts(protocol: AppProtocol) -> None:
    """As Istio's users write it: the port of the workload."""

    def allowed(rule: AuthzRule, *, deny: bool) -> bool:
        held = Authorization(deny=(policy(rule),)) if deny else Authorization(allow=(policy(rule),))
        return decide(held, protocol, port=80, app_port=8080).allowed

    for named in (
        lambda port: operation(ports=(port,)), lambda port: when("destination.port", str(port)),
    ):  # fmt: skip
        assert [allowed(named(port), deny=True) for port in (80, 8080, 81)] == [False, False, True]
        assert [allowed(named(port), deny=False) for port in (80, 8080, 81)] == [True, False, False]
    for excepted in (
        lambda port: operation(not_ports=(port,)),
        lambda port: when("destination.port", not_values=(str(port),)),
    ):
        assert [allowed(excepted(port), deny=True) for port in (80, 8080, 81)] == [True, False, False]
        assert [allowed(excepted(port), deny=False) for port in (80, 8080, 81)] == [False, False, True]


class TestTcp:
    """Istio: on a TCP port HTTP conditions never match in ALLOW and do not count in DENY."""

    RULE = AuthzRule(
        sources=(Source(namespaces=("shop",)),), operations=(Operation(methods=("GET",), ports=(80,)),)
    )

    def test_an_allow_rule_with_http_conditions_never_matches(self) -> None:
        assert decide(Authorization(allow=(policy(self.RULE),)), "http").allowed
        assert not decide(Authorization(allow=(policy(self.RULE),)), "tcp").allowed
        assert not decide(
            Authorization(allow=(policy(when("request.headers[x]", not_values=("y",))),)), "tcp"
        ).allowed

    def test_a_deny_rule_is_judged_by_its_other_conditions(self) -> None:
        deny = Authorization(deny=(policy(self.RULE),))
        assert not decide(deny, "tcp", method="").allowed
        assert decide(deny, "tcp", port=81).allowed
        assert decide(deny, "tcp", principal=NODE).allowed
        assert not decide(Authorization(deny=(policy(when("request.headers[x]", "y")),)), "tcp").allowed

    def test_conditions_on_the_connection_work(self) -> None:
        assert decide(Authorization(allow=(policy(source(principals=("*/sa/cart",))),)), "tcp").allowed


class TestDryRun:
    @pytest.mark.parametrize(
        ("deny", "allow", "allowed", "would", "hits"),
        [
            (EVERYTHING, None, True, False, ("default/dd",)),
            (NOTHING, None, True, True, ()),
            (None, EVERYTHING, True, True, ("default/da",)),
            (None, NOTHING, True, False, ()),
            (EVERYTHING, EVERYTHING, True, False, ("default/dd", "default/da")),
        ],
    )
    def test_it_is_reported_and_decides_nothing(
        self,
        deny: AuthzRule | None,
        allow: AuthzRule | None,
        allowed: bool,
        would: bool,
        hits: tuple[str, ...],
    ) -> None:
        decision = decide(
            Authorization(
                deny=(policy(deny, name="default/dd", dry_run=True),) if deny else (),
                allow=(policy(allow, name="default/da", dry_run=True),) if allow else (),
            )
        )
        assert (decision.allowed, decision.would_allow, decision.dry_run) == (allowed, would, hits)

    def test_an_enforced_deny_stays_one_whatever_a_dry_run_would_allow(self) -> None:
        decision = decide(
            Authorization(
                deny=(policy(EVERYTHING),), allow=(policy(EVERYTHING, name="default/da", dry_run=True),)
            )
        )
        assert (decision.allowed, decision.would_allow) == (False, False)

    def test_a_dry_run_allow_would_open_what_no_enforced_one_does(self) -> None:
        decision = decide(
            Authorization(allow=(policy(NOTHING), policy(EVERYTHING, name="default/da", dry_run=True)))
        )
        assert (decision.allowed, decision.would_allow, decision.dry_run) == (False, True, ("default/da",))


class TestUnsettledEdits:
    def test_a_deny_fires_if_any_version_matches(self) -> None:
        both = AuthzPolicy(name="default/p", variants=((NOTHING,), (EVERYTHING,)))
        assert not decide(Authorization(deny=(both,))).allowed

    def test_an_allow_needs_every_version(self) -> None:
        some = AuthzPolicy(name="default/p", variants=((EVERYTHING,), (NOTHING,)))
        every = AuthzPolicy(name="default/p", variants=((EVERYTHING,), (source(namespaces=("shop",)),)))
        assert not decide(Authorization(allow=(some,))).allowed
        assert decide(Authorization(allow=(every,))).allowed
        assert not decide(Authorization(allow=(AuthzPolicy(name="default/p", variants=()),))).allowed


RULES = st.builds(
    AuthzRule,
    sources=st.lists(
        st.builds(
            Source,
            principals=st.sampled_from([(), ("*",), ("*/sa/cart",)]),
            not_namespaces=st.sampled_from([(), ("shop",), ("x*",)]),
        ),
        max_size=2,
    ).map(tuple),
    operations=st.lists(
        st.builds(
            Operation,
            methods=st.sampled_from([(), ("GET",)]),
            not_paths=st.sampled_from([(), ("/a",), ("/a*", "/b")]),
        ),
        max_size=2,
    ).map(tuple),
)
POLICIES = st.lists(st.lists(RULES, max_size=2), max_size=3)
REQUESTS = st.builds(
    request,
    principal=st.sampled_from([CART, NODE, ""]),
    method=st.sampled_from(["GET", "POST"]),
    path=st.sampled_from(["/a", "/b", "/c"]),
)


@given(POLICIES, POLICIES, st.booleans(), RULES, REQUESTS)
def test_a_further_deny_never_allows_and_a_further_variant_never_either(
    deny: list[list[AuthzRule]],
    allow: list[list[AuthzRule]],
    default: bool,
    more: AuthzRule,
    facts: RequestFacts,
) -> None:
    def outcome(denies: list[list[AuthzRule]], allows: list[AuthzPolicy]) -> bool:
        authorization = Authorization(
            deny=tuple(policy(*rules) for rules in denies), allow=tuple(allows), default_deny=default
        )
        return compile_authorization(authorization).decide(facts).allowed

    plain = [policy(*rules) for rules in allow]
    stricter = [AuthzPolicy(name=each.name, variants=(*each.variants, (more,))) for each in plain]
    before = outcome(deny, plain)
    assert before or not outcome([*deny, [more]], plain)
    assert before or not outcome(deny, stricter)


# ---------------------------------------------------------------- path parameters


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/admin", False), ("/admin;x", False), ("/;x/admin", False), ("/admin;v=1;w", False), ("/admin;x/keys", True),
        ("/open;x", True), ("/admin%3Bx", True),
    ],
)  # fmt: skip
def test_parameters_take_no_path_away_from_a_deny(path: str, allowed: bool) -> None:
    assert decide(Authorization(deny=(policy(operation(paths=("/admin",))),)), path=path).allowed is allowed


@pytest.mark.parametrize(
    ("paths", "allowed"),
    [(("/a",), False), (("/a;x",), False), (("/a;x", "/a"), True), (("/a*",), True), (("*",), True)],
)
def test_an_allow_has_to_hold_in_both_readings(paths: tuple[str, ...], allowed: bool) -> None:
    assert decide(Authorization(allow=(policy(operation(paths=paths)),)), path="/a;x").allowed is allowed


def test_a_deny_of_all_but_some_paths_holds_in_either_reading() -> None:
    all_but = Authorization(deny=(policy(operation(not_paths=("/a;x",))),))
    assert not decide(all_but, path="/a;x").allowed


def test_a_dry_run_tells_of_both_readings() -> None:
    dry = Authorization(deny=(policy(operation(paths=("/a",)), name="default/dd", dry_run=True),))
    decision = decide(dry, path="/a;x")
    assert (decision.allowed, decision.would_allow, decision.dry_run) == (True, False, ("default/dd",))
