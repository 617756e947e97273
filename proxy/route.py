"""Which rule a request takes and which backend it gets (Gateway API HTTPRoute, GEP-1426 for meshes).

Precedence across all rules of all routes, as the HTTPRoute specification gives it: the longest matching host name
(wildcards after whole names), an exact path, then the longest path prefix, then (left to implementations) a regular
expression, the longer pattern first; the prefix `/`, which every match without a path stands for, comes last of
all, or no regular expression could ever be reached beside a catch-all. Ties go to a match with a method, then to
more header matches, then to more query matches, then to the order the compiler gave: the route first by
`<namespace>/<name>`, and in it the rule written first.

Invariant: paths here are normal (`proxy.path.normalise_path`) and without query, and matching costs one look-up per
path segment plus the candidates found, however many rules there are.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final, assert_never
from urllib.parse import unquote_plus

from proxy.regex import LinearRegex
from proxy.snapshot import Backend, Destination, HeaderMatch, RouteMatch, RouteRule, StringMatch

QUERY_PARAMETERS_MAX: Final = 256  # those beyond it are not looked at

Headers = Mapping[str, str]
_Value = Callable[[str | None], bool]


class CompiledRule:
    """A rule with its backends ready to be drawn. One per rule, shared by its matches."""

    __slots__ = ("_cumulative", "_drawable", "rule")

    def __init__(self, rule: RouteRule) -> None:
        self.rule = rule
        self._drawable: tuple[Backend, ...] = tuple(each for each in rule.backends if each.weight > 0)
        self._cumulative = list(accumulate(each.weight for each in self._drawable))

    def __repr__(self) -> str:
        return f"<CompiledRule {self.rule.name}>"

    def choose(self, rng: random.Random) -> Backend | None:
        """A backend by weight; weight 0 gets nothing. None: no backend has a weight (500), or the rule has none.
        The cluster of the result is "" for a backend that does not resolve (500)."""
        drawable = self._drawable
        if len(drawable) == 1:
            return drawable[0]
        if not drawable:
            return None
        return drawable[bisect_right(self._cumulative, int(rng.random() * self._cumulative[-1]))]


class MatchedRule:
    """One way of reaching a rule: what `RouteTable.match` returns.

    `prefix` is the path prefix that matched, without its final slash ("" for `/` and for exact and regular-expression
    matches): what a rewrite of the prefix replaces.
    """

    __slots__ = (
        "_headers",
        "_method",
        "_query",
        "_unindexed",
        "compiled",
        "order",
        "path",
        "prefix",
        "rank",
        "rule",
    )

    def __init__(self, compiled: CompiledRule, match: RouteMatch, order: int) -> None:
        path = match.path
        self.compiled = compiled
        self.rule = compiled.rule
        self.order = order
        self.prefix = _plain_prefix(path.value) if path is not None and path.kind == "prefix_path" else ""
        self.path = path
        self._unindexed = None if path is None or path.kind in {"exact", "prefix_path"} else _value_test(path)
        self._method = match.method
        self._headers = tuple(
            (each.name, _value_test(each.value)) for each in _first_of_each_name(match.headers)
        )
        self._query = tuple((each.name, _value_test(each.value)) for each in _first_of_each_name(match.query))
        # Sorts ascending: the first that matches is the one the specification asks for.
        self.rank = (match.method is None, -len(self._headers), -len(self._query), order)

    def __repr__(self) -> str:
        return f"<MatchedRule {self.rule.name}>"

    def choose(self, rng: random.Random) -> Backend | None:
        """As CompiledRule.choose."""
        return self.compiled.choose(rng)

    def rewritten_path(self, path: str) -> str:
        """The path to send on, after the rule's URLRewrite: the matched prefix is replaced by whole segments."""
        rewrite = self.rule.rewrite
        if rewrite is None:
            return path
        return _replaced(path, self.prefix, rewrite.path, rewrite.path_prefix)

    def redirected_path(self, path: str) -> str:
        """The path of the Location of the rule's RequestRedirect."""
        redirect = self.rule.redirect
        if redirect is None:
            return path
        return _replaced(path, self.prefix, redirect.path, redirect.path_prefix)

    def holds(self, method: str, path: str, query: "_Query", headers: Headers) -> bool:
        """Whether all conditions but an exact or prefix path (which the table has looked up) hold."""
        if self._method is not None and self._method != method:
            return False
        for name, value in self._headers:
            if not value(headers.get(name)):
                return False
        if self._unindexed is not None and not self._unindexed(path):
            return False
        return all(value(query.get(name)) for name, value in self._query) if self._query else True


class _Query:
    """The query string, parsed when first asked. Of a repeated parameter the first value counts (Gateway API)."""

    __slots__ = ("_parsed", "_raw")

    def __init__(self, raw: str) -> None:
        self._raw = raw
        self._parsed: dict[str, str] | None = None

    def get(self, name: str) -> str | None:
        if self._parsed is None:
            self._parsed = {}
            for pair in self._raw.split("&", QUERY_PARAMETERS_MAX)[:QUERY_PARAMETERS_MAX]:
                key, _, value = pair.partition("=")
                self._parsed.setdefault(unquote_plus(key), unquote_plus(value))
        return self._parsed.get(name)


class _PathIndex:
    """The ways of reaching rules, found by path."""

    __slots__ = ("_catch_all", "_depth", "_exact", "_patterns", "_prefixes")

    def __init__(self, entries: Sequence[MatchedRule]) -> None:
        exact: dict[str, list[MatchedRule]] = {}
        prefixes: dict[str, list[MatchedRule]] = {}
        patterns: list[tuple[int, MatchedRule]] = []
        for entry in entries:
            path = entry.path
            if path is None or path.kind == "prefix_path":
                prefixes.setdefault(entry.prefix, []).append(entry)
            elif path.kind == "exact":
                exact.setdefault(path.value, []).append(entry)
            else:
                patterns.append((-len(path.value), entry))
        self._exact = {path: _ranked(found) for path, found in exact.items()}
        self._catch_all = _ranked(prefixes.pop("", []))
        self._prefixes = {path: _ranked(found) for path, found in prefixes.items()}
        self._depth = max((path.count("/") for path in self._prefixes), default=0)
        patterns.sort(key=lambda each: (each[0], each[1].rank))
        self._patterns = tuple(entry for _, entry in patterns)

    def match(self, method: str, path: str, query: _Query, headers: Headers) -> MatchedRule | None:
        for entry in self._exact.get(path, ()):
            if entry.holds(method, path, query, headers):
                return entry
        if self._depth:
            for prefix in _prefixes_of(path, self._depth):
                for entry in self._prefixes.get(prefix, ()):
                    if entry.holds(method, path, query, headers):
                        return entry
        for entry in self._patterns:
            if entry.holds(method, path, query, headers):
                return entry
        for entry in self._catch_all:
            if entry.holds(method, path, query, headers):
                return entry
        return None


class RouteTable:
    """Rules made ready for the hot path. Immutable."""

    __slots__ = ("_any_host", "_by_host", "_by_suffix", "rules")

    def __init__(self, rules: Sequence[RouteRule]) -> None:
        self.rules = tuple(rules)
        by_host: dict[str, list[MatchedRule]] = {}
        order = 0
        for rule in rules:
            compiled = CompiledRule(rule)
            for match in rule.matches:
                entry = MatchedRule(compiled, match, order)
                order += 1
                for hostname in rule.hostnames or ("",):
                    by_host.setdefault(hostname, []).append(entry)
        self._any_host = _PathIndex(by_host.pop("", []))
        # "*.example.org" is kept as ".example.org": it stands for one label or more, so not for example.org itself.
        self._by_suffix = sorted(
            ((name[1:], _PathIndex(found)) for name, found in by_host.items() if name.startswith("*.")),
            key=lambda each: (-len(each[0]), each[0]),
        )
        self._by_host = {name: _PathIndex(found) for name, found in by_host.items() if name[0] != "*"}

    def __repr__(self) -> str:
        return f"<RouteTable of {len(self.rules)} rules>"

    def match(self, method: str, path: str, query_string: str, headers: Headers) -> MatchedRule | None:
        """The rule a request takes, or None: 404.

        `path` is normal and has no query; `query_string` has no `?`; `headers` has names in lower case, repeated ones
        joined with commas, and the Host (or :authority) as `host`.
        """
        query = _Query(query_string)
        if self._by_host or self._by_suffix:
            host = _host_name(headers.get("host", ""))
            index = self._by_host.get(host)
            found = index.match(method, path, query, headers) if index is not None else None
            if found is not None:
                return found
            for suffix, index in self._by_suffix:
                if host.endswith(suffix) and len(host) > len(suffix):
                    found = index.match(method, path, query, headers)
                    if found is not None:
                        return found
        return self._any_host.match(method, path, query, headers)


class DestinationRoutes:
    """All tables of one destination: its own, and those of callers' namespaces."""

    __slots__ = ("_by_caller", "_own", "destination")

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self._own = RouteTable(destination.rules) if destination.routed or destination.rules else None
        self._by_caller = {namespace: RouteTable(rules) for namespace, rules in destination.caller_rules}

    def table(self, caller_namespace: str) -> RouteTable | None:
        """The rules for a caller, or None: every request goes to `destination.cluster`."""
        return self._by_caller.get(caller_namespace, self._own)


def compile_rules(rules: Sequence[RouteRule]) -> RouteTable:
    """Precompile. Raises ValueError for a regular expression that is none."""
    return RouteTable(rules)


def compile_destination(destination: Destination) -> DestinationRoutes:
    """Precompile the tables of a destination. Raises as `compile_rules`."""
    return DestinationRoutes(destination)


def _host_name(authority: str) -> str:
    """The name in a Host header: lower case, without port and without the dot of a fully qualified name."""
    name, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        name = authority
    return name.lower().removesuffix(".")


def _ranked(entries: list[MatchedRule]) -> tuple[MatchedRule, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.rank))


def _prefixes_of(path: str, depth: int) -> list[str]:
    """The path prefixes by segment, longest first, of at most `depth` segments: /a/b/c, /a/b, /a."""
    parts = path.split("/", depth + 1)
    return ["/".join(parts[:count]) for count in range(min(len(parts), depth + 1), 1, -1)]


def _plain_prefix(value: str) -> str:
    return value.rstrip("/")


def _replaced(path: str, prefix: str, whole: str | None, replacement: str | None) -> str:
    if whole is not None:
        return whole
    if replacement is None:
        return path
    rest = path[len(prefix) :]
    new = replacement.rstrip("/")
    if rest and not rest.startswith("/"):  # the prefix was "" and the path its own whole
        rest = f"/{rest}"
    return (new + rest) or "/"


def _first_of_each_name(matches: tuple[HeaderMatch, ...]) -> tuple[HeaderMatch, ...]:
    """Of matches on one name only the first counts (Gateway API)."""
    return tuple({each.name: each for each in reversed(matches)}.values())[::-1]


def _value_test(match: StringMatch) -> _Value:
    wanted = match.value
    match match.kind:
        case "exact":
            return lambda value: value == wanted
        case "prefix":
            return lambda value: value is not None and value.startswith(wanted)
        case "suffix":
            return lambda value: value is not None and value.endswith(wanted)
        case "prefix_path":
            plain = _plain_prefix(wanted)
            return lambda value: value is not None and (value == plain or value.startswith(plain + "/"))
        case "regex":
            matches = LinearRegex(wanted).matches
            return lambda value: value is not None and matches(value)
        case "present":
            return lambda value: value is not None
        case _:
            assert_never(match.kind)
