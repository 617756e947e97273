"""From user-facing schemas to the data planes' own words: one schema, one function, no mesh state.

Invariant: pure translation. What a field means is decided by the schema (proxy/resources) and by the decision
modules; which services exist is asked of the caller.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from proxy.resources.authorization import AuthorizationPolicySpec, OperationSpec, SourceSpec
from proxy.resources.httproute import BackendRef, HeaderModifier, HTTPRouteSpec, Match, PathModifier, Rule
from proxy.resources.traffic import TrafficPolicySpec
from proxy.snapshot import (
    AuthzRule,
    Backend,
    CircuitBreaker,
    Cluster,
    Condition,
    HeaderEdit,
    HeaderMatch,
    Operation,
    Outlier,
    Redirect,
    RetryPolicy,
    Rewrite,
    RouteMatch,
    RouteRule,
    Source,
    StringMatch,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Istio's name for "the trust domain of this mesh, whatever it is called".
TRUST_DOMAIN_ALIAS: Final = "cluster.local"

_PATH_KINDS: Final = {"Exact": "exact", "PathPrefix": "prefix_path", "RegularExpression": "regex"}
_VALUE_KINDS: Final = {"Exact": "exact", "RegularExpression": "regex"}

D = TypeVar("D", bound="DataclassInstance")


# ---------------------------------------------------------------- HTTPRoute


def route_rules(
    key: str, spec: HTTPRouteSpec, cluster_of: Callable[[BackendRef], str]
) -> tuple[RouteRule, ...]:
    """The rules of a route. `key` is `<Kind>/<namespace>/<name>`; `cluster_of` resolves a backend, "" if it cannot."""
    return tuple(
        _rule(f"{key}/{rule.name or index}", rule, spec.hostnames, cluster_of)
        for index, rule in enumerate(spec.rules)
    )


def _rule(
    name: str, rule: Rule, hostnames: tuple[str, ...], cluster_of: Callable[[BackendRef], str]
) -> RouteRule:
    request_headers = response_headers = redirect = rewrite = None
    for each in rule.filters:
        if each.request_header_modifier is not None:
            request_headers = _header_edit(each.request_header_modifier)
        if each.response_header_modifier is not None:
            response_headers = _header_edit(each.response_header_modifier)
        if (to := each.request_redirect) is not None:
            path, prefix = _path_change(to.path)
            redirect = Redirect(
                scheme=to.scheme,
                hostname=to.hostname,
                port=to.port,
                path=path,
                path_prefix=prefix,
                status=to.status_code,
            )
        if each.url_rewrite is not None:
            path, prefix = _path_change(each.url_rewrite.path)
            rewrite = Rewrite(hostname=each.url_rewrite.hostname, path=path, path_prefix=prefix)
    return RouteRule(
        name=name,
        matches=tuple(map(_match, rule.matches)) or (RouteMatch(),),
        backends=tuple(Backend(cluster=cluster_of(each), weight=each.weight) for each in rule.backend_refs),
        hostnames=hostnames,
        request_timeout_s=rule.timeouts.request,
        per_try_timeout_s=rule.timeouts.backend_request,
        request_headers=request_headers,
        response_headers=response_headers,
        redirect=redirect,
        rewrite=rewrite,
    )


def _match(match: Match) -> RouteMatch:
    return RouteMatch(
        path=_string(_PATH_KINDS[match.path.type], match.path.value),
        headers=tuple(
            HeaderMatch(name=each.name, value=_string(_VALUE_KINDS[each.type], each.value))
            for each in match.headers
        ),
        query=tuple(
            HeaderMatch(name=each.name, value=_string(_VALUE_KINDS[each.type], each.value))
            for each in match.query_params
        ),
        method=match.method,
    )


def _string(kind: Any, value: str) -> StringMatch:
    return StringMatch(kind=kind, value=value)


def _header_edit(modifier: HeaderModifier) -> HeaderEdit:
    return HeaderEdit(
        set=tuple((each.name, each.value) for each in modifier.set),
        add=tuple((each.name, each.value) for each in modifier.add),
        remove=modifier.remove,
    )


def _path_change(change: PathModifier | None) -> tuple[str | None, str | None]:
    """(whole path, prefix), each None when it stays. Replacing a prefix by "" is replacing it by "/"."""
    if change is None:
        return None, None
    prefix = change.replace_prefix_match
    return change.replace_full_path, None if prefix is None else prefix or "/"


# ---------------------------------------------------------------- AuthorizationPolicy


def authorization_rules(spec: AuthorizationPolicySpec, trust_domain: str) -> tuple[AuthzRule, ...]:
    """The rules of a policy, with the trust domain's alias resolved in principals."""
    return tuple(
        AuthzRule(
            sources=tuple(_source(each.source, trust_domain) for each in rule.from_),
            operations=tuple(_operation(each.operation) for each in rule.to),
            conditions=tuple(
                Condition(
                    key=each.key,
                    values=_values(each.key, each.values, trust_domain),
                    not_values=_values(each.key, each.not_values, trust_domain),
                )
                for each in rule.when
            ),
        )
        for rule in spec.rules
    )


def _source(source: SourceSpec, trust_domain: str) -> Source:
    return Source(
        principals=_principals(source.principals, trust_domain),
        not_principals=_principals(source.not_principals, trust_domain),
        namespaces=source.namespaces,
        not_namespaces=source.not_namespaces,
        ip_blocks=source.ip_blocks,
        not_ip_blocks=source.not_ip_blocks,
    )


def _operation(operation: OperationSpec) -> Operation:
    return Operation(
        hosts=operation.hosts,
        not_hosts=operation.not_hosts,
        ports=tuple(map(int, operation.ports)),
        not_ports=tuple(map(int, operation.not_ports)),
        methods=operation.methods,
        not_methods=operation.not_methods,
        paths=operation.paths,
        not_paths=operation.not_paths,
    )


def _values(key: str, values: tuple[str, ...], trust_domain: str) -> tuple[str, ...]:
    return _principals(values, trust_domain) if key == "source.principal" else values


def _principals(patterns: tuple[str, ...], trust_domain: str) -> tuple[str, ...]:
    alias = f"{TRUST_DOMAIN_ALIAS}/"
    return tuple(
        f"{trust_domain}/{each.removeprefix(alias)}" if each.startswith(alias) else each for each in patterns
    )


# ---------------------------------------------------------------- TrafficPolicy


def with_traffic_policy(cluster: Cluster, spec: TrafficPolicySpec) -> Cluster:
    """The cluster as the policy wants it treated; what the policy does not say stays."""
    balancer, retries, outlier = spec.load_balancer, spec.retries, spec.outlier_detection
    if balancer is not None:
        locality = balancer.locality_lb_setting
        cluster = _changed(
            cluster,
            balancer=balancer.policy,
            panic_threshold_percent=balancer.panic_threshold,
            locality_preferred=None if locality is None else locality.enabled,
        )
    if spec.timeouts is not None:
        cluster = _changed(cluster, connect_timeout_s=spec.timeouts.connect)
    if retries is not None:
        backoff, budget = retries.retry_back_off, retries.retry_budget
        policy: RetryPolicy = _changed(
            cluster.retry,
            attempts=retries.attempts,
            on=retries.retry_on,
            per_try_timeout_s=retries.per_try_timeout,
            budget_percent=budget and budget.budget_percent,
            budget_floor=budget and budget.min_retry_concurrency,
        )
        if backoff is not None:
            base_s = backoff.base_interval or policy.backoff_base_s
            policy = replace(
                policy, backoff_base_s=base_s, backoff_max_s=backoff.max_interval or 10.0 * base_s
            )
        cluster = replace(cluster, retry=policy)
    cluster = replace(cluster, breaker=breaker_of(spec, cluster.breaker))
    if outlier is not None:
        passive: Outlier = _changed(
            cluster.outlier,
            enabled=outlier.enabled,
            consecutive_5xx=outlier.consecutive_5xx,
            interval_s=outlier.interval,
            base_ejection_time_s=outlier.base_ejection_time,
            max_ejection_time_s=outlier.max_ejection_time,
            max_ejection_percent=outlier.max_ejection_percent,
        )
        cluster = replace(cluster, outlier=passive)
    return cluster


def breaker_of(spec: TrafficPolicySpec, limits: CircuitBreaker) -> CircuitBreaker:
    """The limits as the policy wants them; those it does not give stay."""
    breaker = spec.circuit_breaker
    if breaker is None:
        return limits
    changed: CircuitBreaker = _changed(
        limits,
        connections_max=breaker.max_connections,
        pending_max=breaker.max_pending_requests,
        requests_max=breaker.max_requests,
    )
    return changed


def _changed(value: D, **changes: Any) -> D:
    """A copy of a dataclass with the changes that are not None."""
    given = {name: change for name, change in changes.items() if change is not None}
    assert given.keys() <= {each.name for each in fields(value)}
    return replace(value, **given)
