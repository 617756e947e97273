"""Who may call: Istio's AuthorizationPolicy, decided at the callee (and before a call to the own host).

A request matching a DENY policy is denied. Otherwise, with no ALLOW policy on the workload the mesh's default
decides; with one or more, the request must match one. Dry-run policies are evaluated and reported, and decide
nothing.

Strings match as in Istio: exact, `prefix*`, `*suffix`, `*` for any that is not empty; hosts without regard to case
and, where the pattern names no port, without regard to the request's port. A policy with no rules matches nothing
(an ALLOW of that kind denies all), an empty rule matches everything. On a TCP service conditions on HTTP do not
exist: an ALLOW rule with one never matches, a DENY rule is judged by its other conditions alone, as Istio does, so
that it denies more.

A port is the service's. Istio means the one that the application listens on, and a policy from there must not let pass
what it was to stop: where naming a port restricts (`ports` of a DENY, `notPorts` of an ALLOW) it means either.

Unsettled concurrent edits arrive as variants: a DENY fires if any variant matches, an ALLOW only if every one does.

A path with parameters (`/a;v=1`) has two readings (path.py): the request passes if it may in both. So a DENY of `/a`
holds for `/a;v=1`, and an ALLOW of `/a;v=1` alone is none, for a server may take it for `/a`.

Invariant: a decision depends on the compiled policies and the facts alone; paths are compared in normal form
(`normalise_path`), so no spelling of a path escapes a policy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeVar

from proxy.path import normalise_path, without_parameters
from proxy.snapshot import AppProtocol, Authorization, AuthzPolicy, AuthzRule, Condition, Operation, Source

__all__ = [
    "CompiledAuthorization",
    "Decision",
    "RequestFacts",
    "compile_authorization",
    "normalise_path",
    "split_port",
]

T = TypeVar("T")

_NO_HEADERS: Final[Mapping[str, str]] = {}


@dataclass(slots=True, kw_only=True)
class RequestFacts:
    """What is known of a request (or TCP connection) where it is authorised. Not frozen: one is made per request.

    `principal` is the verified SPIFFE ID, with or without `spiffe://`; "" for none. `path` is normal and has no query.
    `headers` has names in lower case; repeated headers are joined with commas. On TCP only principal, ip, port and
    sni count.
    """

    principal: str = ""
    ip: str = ""
    port: int = 0  # the service's
    app_port: int = 0  # where the application listens
    sni: str = ""
    host: str = ""  # Host or :authority as sent
    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)

    @property
    def source(self) -> str:
        """The principal as policies write it."""
        return self.principal.removeprefix("spiffe://")

    @property
    def namespace(self) -> str:
        """The caller's namespace, "" for a node or nobody."""
        parts = self.source.split("/")
        return parts[2] if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome. `policy` is "<namespace>/<name>" of the policy that decided, "" when the default did."""

    allowed: bool
    policy: str
    reason: str
    dry_run: tuple[str, ...] = ()  # the dry-run policies that matched
    would_allow: bool = (
        True  # the outcome if dry-run policies were enforced; equals `allowed` when there are none
    )


Test = Callable[[RequestFacts], bool]


class CompiledAuthorization:
    """An `Authorization` made ready for the hot path. Immutable."""

    __slots__ = ("_allow", "_default", "_deny", "_dry_allow", "_dry_deny", "_unmatched", "reads_headers")

    def __init__(self, authorization: Authorization, protocol: AppProtocol) -> None:
        http = protocol != "tcp"
        self.reads_headers = http and any(
            condition.key.startswith("request.headers[")
            for policy in (*authorization.deny, *authorization.allow)
            for rules in policy.variants
            for rule in rules
            for condition in rule.conditions
        )  # otherwise two requests that differ in headers alone are decided alike
        enforced = [policy for policy in authorization.deny if not policy.dry_run]
        self._deny = [(_deny_test(policy, http), _outcome(False, policy)) for policy in enforced]
        enforced = [policy for policy in authorization.allow if not policy.dry_run]
        self._allow = [(_allow_test(policy, http), _outcome(True, policy)) for policy in enforced]
        self._dry_deny = [(p.name, _deny_test(p, http)) for p in authorization.deny if p.dry_run]
        self._dry_allow = [(p.name, _allow_test(p, http)) for p in authorization.allow if p.dry_run]
        default = not authorization.default_deny
        self._default = _final(
            default,
            "no ALLOW policy on the workload" if default else "the mesh denies what no ALLOW policy allows",
        )
        self._unmatched = _final(False, "no ALLOW policy matches")

    def decide(self, request: RequestFacts) -> Decision:
        """May this request pass?"""
        decision = self._decide(request)
        if ";" not in request.path:
            return decision
        bare = self._decide(replace(request, path=without_parameters(request.path)))
        told = bare if decision.allowed else decision
        return replace(
            told,
            dry_run=tuple(dict.fromkeys(decision.dry_run + bare.dry_run)),
            would_allow=decision.would_allow and bare.would_allow,
        )

    def _decide(self, request: RequestFacts) -> Decision:
        decision = self._enforced(request)
        if self._dry_deny or self._dry_allow:
            return self._with_dry_run(decision, request)
        return decision

    def _enforced(self, request: RequestFacts) -> Decision:
        for matches, denied in self._deny:
            if matches(request):
                return denied
        if not self._allow:
            return self._default
        for matches, allowed in self._allow:
            if matches(request):
                return allowed
        return self._unmatched

    def _with_dry_run(self, decision: Decision, request: RequestFacts) -> Decision:
        denying = tuple(name for name, matches in self._dry_deny if matches(request))
        allowing = tuple(name for name, matches in self._dry_allow if matches(request))
        enforced_deny = not decision.allowed and decision.policy != ""
        if denying or enforced_deny:
            would = False
        elif allowing:
            would = True
        elif self._allow or not self._dry_allow:
            would = decision.allowed
        else:  # the dry-run ALLOW policies would be the only ones, and none matches
            would = False
        return Decision(
            allowed=decision.allowed,
            policy=decision.policy,
            reason=decision.reason,
            dry_run=denying + allowing,
            would_allow=would,
        )


def compile_authorization(
    authorization: Authorization, protocol: AppProtocol = "http"
) -> CompiledAuthorization:
    """Precompile. Raises ValueError when a policy holds what it must not (a bad CIDR, port or condition key)."""
    return CompiledAuthorization(authorization, protocol)


def _final(allowed: bool, reason: str, policy: str = "") -> Decision:
    return Decision(allowed=allowed, policy=policy, reason=reason, would_allow=allowed)


def _outcome(allowed: bool, policy: AuthzPolicy) -> Decision:
    return _final(allowed, "ALLOW policy matches" if allowed else "DENY policy matches", policy.name)


def _deny_test(policy: AuthzPolicy, http: bool) -> Test:
    return _any([_rules(rules, http, deny=True) for rules in policy.variants])


def _allow_test(policy: AuthzPolicy, http: bool) -> Test:
    if not policy.variants:
        return _never
    return _all([_rules(rules, http, deny=False) for rules in policy.variants])


def _rules(rules: tuple[AuthzRule, ...], http: bool, *, deny: bool) -> Test:
    return _any([_rule(rule, http, deny=deny) for rule in rules])


def _rule(rule: AuthzRule, http: bool, *, deny: bool) -> Test:
    tests: list[Test] = []
    if rule.sources:
        tests.append(_any([_all(_source_tests(source)) for source in rule.sources]))
    if rule.operations:
        tests.append(_any([_all(_operation_tests(each, http, deny=deny)) for each in rule.operations]))
    tests += [_condition(each, http, deny=deny) for each in rule.conditions]
    return _all(tests)


def _source_tests(source: Source) -> list[Test]:
    return [
        *_strings(_principal, source.principals, source.not_principals),
        *_strings(_namespace, source.namespaces, source.not_namespaces),
        *_pair(_ip_test, source.ip_blocks, source.not_ip_blocks),
    ]


def _operation_tests(operation: Operation, http: bool, *, deny: bool) -> list[Test]:
    tests = _ports(operation.ports, operation.not_ports, deny=deny)
    on_http = [
        *_pair(_host_test, operation.hosts, operation.not_hosts),
        *_strings(lambda facts: facts.method, operation.methods, operation.not_methods),
        *_strings(lambda facts: facts.path, operation.paths, operation.not_paths),
    ]
    if http or not on_http:
        return tests + on_http
    return tests if deny else [_never]


def _condition(condition: Condition, http: bool, *, deny: bool) -> Test:
    key, values, refused = condition.key, condition.values, condition.not_values
    if key.startswith("request.headers[") and key.endswith("]"):
        if not http:
            return _always if deny else _never
        name = key[len("request.headers[") : -1].lower()
        return _all(_strings(lambda facts: facts.headers.get(name, ""), values, refused))
    match key:
        case "source.principal":
            return _all(_strings(_principal, values, refused))
        case "source.namespace":
            return _all(_strings(_namespace, values, refused))
        case "source.ip":
            return _all(_pair(_ip_test, values, refused))
        case "destination.port":
            return _all(_ports(tuple(map(int, values)), tuple(map(int, refused)), deny=deny))
        case "connection.sni":
            return _all(_strings(lambda facts: facts.sni, values, refused))
        case _:
            raise ValueError(f"unknown condition key {key!r}")


# ---------------------------------------------------------------- tests of one attribute


def _principal(facts: RequestFacts) -> str:
    return facts.source


def _namespace(facts: RequestFacts) -> str:
    return facts.namespace


def _strings(
    attribute: Callable[[RequestFacts], str], wanted: tuple[str, ...], refused: tuple[str, ...]
) -> list[Test]:
    def test(patterns: tuple[str, ...]) -> Test:
        matches = compile_patterns(patterns)
        return lambda facts: matches(attribute(facts))

    return _pair(test, wanted, refused)


def _pair(test: Callable[[tuple[T, ...]], Test], wanted: tuple[T, ...], refused: tuple[T, ...]) -> list[Test]:
    tests: list[Test] = []
    if wanted:
        tests.append(test(wanted))
    if refused:
        tests.append(_not(test(refused)))
    return tests


def compile_patterns(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """A test for "any of these Istio patterns matches". No pattern matches the empty string but an empty one."""
    exact = frozenset(each for each in patterns if not (each.startswith("*") or each.endswith("*")))
    prefixes = tuple(each[:-1] for each in patterns if each.endswith("*") and each != "*")
    suffixes = tuple(each[1:] for each in patterns if each.startswith("*") and not each.endswith("*"))
    if "*" in patterns:
        return lambda value: value != "" or value in exact
    if not prefixes and not suffixes:
        return exact.__contains__
    return lambda value: (
        value in exact or (value != "" and (value.startswith(prefixes) or value.endswith(suffixes)))
    )


def _host_test(hosts: tuple[str, ...]) -> Test:
    named = tuple(_plain_host(host) for host in hosts)
    as_sent = compile_patterns(named)
    without_port = compile_patterns(tuple(host for host in named if split_port(host)[1] == ""))

    def test(facts: RequestFacts) -> bool:
        host = _plain_host(facts.host)
        return as_sent(host) or without_port(split_port(host)[0])

    return test


def _plain_host(host: str) -> str:
    """Lower case, and without the dot that ends a fully qualified name: `A.example.com.:80` is `a.example.com:80`."""
    name, port = split_port(host.lower())
    return f"{name.removesuffix('.')}:{port}" if port else name.removesuffix(".")


def split_port(host: str) -> tuple[str, str]:
    """(name, port); the port may be `*` in a pattern and is "" when there is none. `[::1]` keeps its brackets."""
    name, colon, port = host.rpartition(":")
    if colon and not port.endswith("]") and (port == "*" or port.isdecimal()):
        return name, port
    return host, ""


def _ports(wanted: tuple[int, ...], refused: tuple[int, ...], *, deny: bool) -> list[Test]:
    return [
        *_pair(_either_port_test if deny else _port_test, wanted, ()),
        *_pair(_port_test if deny else _either_port_test, (), refused),
    ]


def _port_test(ports: tuple[int, ...]) -> Test:
    named = frozenset(ports)
    return lambda facts: facts.port in named


def _either_port_test(ports: tuple[int, ...]) -> Test:
    named = frozenset(ports)
    return lambda facts: facts.port in named or facts.app_port in named


def _ip_test(blocks: tuple[str, ...]) -> Test:
    networks = tuple(ip_network(block, strict=False) for block in blocks)

    def test(facts: RequestFacts) -> bool:
        address = _address(facts.ip)
        return address is not None and any(_inside(address, network) for network in networks)

    return test


def _inside(address: IPv4Address | IPv6Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


# ---------------------------------------------------------------- combining tests


def _always(facts: RequestFacts) -> bool:
    return True


def _never(facts: RequestFacts) -> bool:
    return False


def _not(test: Test) -> Test:
    return lambda facts: not test(facts)


def _all(tests: list[Test]) -> Test:
    """Every test holds; with none, always."""
    match tests:
        case []:
            return _always
        case [only]:
            return only
        case [first, second]:
            return lambda facts: first(facts) and second(facts)
    return lambda facts: all(test(facts) for test in tests)


def _any(tests: list[Test]) -> Test:
    """Some test holds; with none, never."""
    match tests:
        case []:
            return _never
        case [only]:
            return only
        case [first, second]:
            return lambda facts: first(facts) or second(facts)
    return lambda facts: any(test(facts) for test in tests)
