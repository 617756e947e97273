"""HTTPRoute: what is taken, and what is refused by name."""

from typing import Any

import pytest

from proxy.resources import ResourceError, parse_resource
from proxy.resources.httproute import HTTPRouteSpec

PARENTS = [{"group": "", "kind": "Service", "name": "cart", "port": 80}]


def parse(rule: Any = None, **spec: Any) -> HTTPRouteSpec:
    resource = parse_resource(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "r"},
            "spec": {"parentRefs": PARENTS, "rules": [{} if rule is None else rule]} | spec,
        }
    )
    assert isinstance(resource.spec, HTTPRouteSpec)
    return resource.spec


def problem(rule: Any = None, **spec: Any) -> str:
    with pytest.raises(ResourceError) as caught:
        parse(rule, **spec)
    return str(caught.value).replace("HTTPRoute default/r: ", "")


def test_defaults_are_those_of_the_gateway_api() -> None:
    spec = parse({"matches": [{}], "backendRefs": [{"name": "a"}]})
    [rule] = spec.rules
    assert (rule.matches[0].path.type, rule.matches[0].path.value) == ("PathPrefix", "/")
    assert rule.backend_refs[0].weight == 1
    assert rule.timeouts.request is None


def test_everything_that_is_implemented_is_taken() -> None:
    spec = parse(
        {
            "name": "canary",
            "matches": [
                {
                    "path": {"type": "RegularExpression", "value": "/v[12]/.*"},
                    "headers": [{"name": "X-Env", "value": "t.*", "type": "RegularExpression"}],
                    "queryParams": [{"name": "q", "value": "1"}],
                    "method": "GET",
                }
            ],
            "filters": [
                {
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": {"set": [{"name": "A", "value": "b"}]},
                },
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["Server"]}},
                {
                    "type": "URLRewrite",
                    "urlRewrite": {
                        "hostname": "x.y",
                        "path": {"type": "ReplaceFullPath", "replaceFullPath": "/z"},
                    },
                },
            ],
            "backendRefs": [{"kind": "Service", "name": "a", "namespace": "b", "port": 80, "weight": 0}],
            "timeouts": {"request": "1h30m", "backendRequest": "100ms"},
        },
        hostnames=["a.example.com", "*.example.com"],
    )
    [rule] = spec.rules
    assert rule.matches[0].headers[0].name == "x-env"
    assert rule.timeouts.request == 5400.0
    assert rule.timeouts.backend_request == pytest.approx(0.1)
    assert rule.filters[1].response_header_modifier is not None
    assert rule.filters[1].response_header_modifier.remove == ("server",)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"retry": {}}, "spec.rules[0].retry: is not supported yet"),
        ({"sessionPersistence": None}, "spec.rules[0].sessionPersistence: is not supported yet"),
        (
            {"backendRefs": [{"name": "a", "filters": []}]},
            "spec.rules[0].backendRefs[0].filters: is not supported yet",
        ),
        (
            {"backendRefs": [{"name": "a", "kind": "Gateway"}]},
            "backendRefs[0].kind: must be Service ('Gateway'",
        ),
        ({"backendRefs": [{"name": "a", "group": "x.io"}]}, 'backendRefs[0].group: must be "" or core'),
        ({"backendRefs": [{"name": "a", "weight": 1_000_001}]}, "backendRefs[0].weight: must be <= 1000000"),
        (
            {"backendRefs": [{"name": "a", "weight": True}]},
            "weight: must be a whole number, not true or false",
        ),
        ({"backendRefs": [{"name": "a", "weight": "5"}]}, "weight: must be a whole number, not a string"),
        ({"backendRefs": [{"name": "a", "port": 0}]}, "backendRefs[0].port: must be >= 1"),
        ({"backendRefs": [{"name": "A_b"}]}, "backendRefs[0].name: must be a DNS label"),
        ({"backendRefs": {"name": "a"}}, "spec.rules[0].backendRefs: must be a list, not a mapping"),
        ({"backendRefs": [{"name": "a"}] * 17}, "spec.rules[0].backendRefs: must have at most 16 entries"),
        ({"filters": [{"type": "RequestMirror", "requestMirror": {}}]}, "RequestMirror is not supported yet"),
        ({"filters": [{"type": "CORS", "cors": {}}]}, "filters[0].cors: is not supported yet"),
        (
            {"filters": [{"type": "URLRewrite"}]},
            "filters[0]: urlRewrite goes with type URLRewrite, and only with it",
        ),
        (
            {"filters": [{"type": "URLRewrite", "urlRewrite": {}}] * 2},
            "spec.rules[0]: filters: URLRewrite occurs twice",
        ),
        (
            {"filters": [{"type": "RequestRedirect", "requestRedirect": {}}], "backendRefs": [{"name": "a"}]},
            "backendRefs: a rule that redirects sends nothing to a backend",
        ),
        (
            {
                "matches": [{"path": {"type": "Exact", "value": "/a"}}],
                "filters": [
                    {
                        "type": "URLRewrite",
                        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
                    }
                ],
            },
            "ReplacePrefixMatch needs every match to be of type PathPrefix",
        ),
        (
            {"filters": [{"type": "RequestRedirect", "requestRedirect": {"statusCode": 200}}]},
            "statusCode: must be one of 301, 302, 303, 307, 308, not 200",
        ),
        (
            {
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"remove": ["Transfer-Encoding"]},
                    }
                ]
            },
            "the header transfer-encoding belongs to the proxy and cannot be changed",
        ),
        (
            {
                "filters": [
                    {
                        "type": "ResponseHeaderModifier",
                        "responseHeaderModifier": {"remove": ["X_Forwarded-Client-Cert"]},
                    }
                ]
            },
            "the header x_forwarded-client-cert belongs to the proxy and cannot be changed",
        ),
        (
            {
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": [{"name": "X-Request-Id", "value": "1"}]},
                    }
                ]
            },
            "the header x-request-id of a request belongs to the proxy and cannot be changed",
        ),
        (
            {"matches": [{"headers": [{"name": "Connection", "value": "upgrade"}]}]},
            "headers[0].name: the header connection ends at the proxy, so no rule can match it",
        ),
        (
            {
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": [{"name": "a", "value": "b\r\nevil: 1"}]},
                    }
                ]
            },
            "set[0].value: must not hold control characters",
        ),
        (
            {
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {
                            "add": [{"name": "A", "value": "1"}, {"name": "a", "value": "2"}]
                        },
                    }
                ]
            },
            "add: the header a occurs twice",
        ),
        ({"matches": [{"path": {"value": "//a"}}]}, "path: value: must be written in normal form, '/a'"),
        ({"matches": [{"path": {"value": "/a/../b"}}]}, "path: value: must be written in normal form, '/b'"),
        ({"matches": [{"path": {"value": "/a?b"}}]}, "path: value: must be a path that begins with '/'"),
        (
            {"matches": [{"path": {"type": "Regex"}}]},
            "must be one of Exact, PathPrefix, RegularExpression, not 'Regex'",
        ),
        (
            {"matches": [{"path": {"type": "RegularExpression", "value": r"/(a)\1"}}]},
            "matches[0].path: back-references are not supported at position",
        ),
        (
            {"matches": [{"headers": [{"name": "x", "type": "RegularExpression", "value": "(?=a)"}]}]},
            "headers[0]: lookaround is not supported",
        ),
        (
            {"matches": [{"headers": [{"name": "x y", "value": "a"}]}]},
            "headers[0].name: must be a header name, not 'x y'",
        ),
        ({"matches": [{"method": "get"}]}, "method: must be one of GET, HEAD,"),
        (
            {"timeouts": {"request": 5}},
            "timeouts.request: must be a duration such as 5s or 100ms, not the number 5",
        ),
        ({"timeouts": {"request": "5"}}, "must be a duration such as 5s, 100ms or 1h30m, not '5'"),
        ({"timeouts": {"request": "1.5s"}}, "must be a duration"),
        ({"timeouts": {"request": "-1s"}}, "must be a duration"),
        (
            {"timeouts": {"request": "1s", "backendRequest": "2s"}},
            "timeouts: backendRequest: must not be longer than request",
        ),
        ({"matches": [None]}, "spec.rules[0].matches[0]: must be a mapping, not nothing"),
    ],
)
def test_faults_of_a_rule(rule: Any, expected: str) -> None:
    assert expected in problem(rule)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"parentRefs": []}, "spec.parentRefs: must not be empty"),
        ({"parentRefs": [{"name": "gw"}]}, "spec.parentRefs[0].kind: is required"),
        (
            {"parentRefs": [{"kind": "Gateway", "name": "gw"}]},
            "kind: must be Service ('Gateway' is not supported)",
        ),
        (
            {"parentRefs": [PARENTS[0] | {"sectionName": "x"}]},
            "spec.parentRefs[0].sectionName: is not supported yet",
        ),
        ({"rules": []}, "spec.rules: must not be empty"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "spec: rules: the name a occurs twice"),
        ({"rules": [{"matches": [{}] * 64}] * 3}, "spec: rules: 192 matches, at most 128 in a route"),
        ({"hostnames": ["10.0.0.1:80"]}, "spec.hostnames[0]: "),
        ({"hostnames": ["a.*.b"]}, "spec.hostnames[0]: "),
        ({"hostname": "a.b"}, "spec.hostname: unknown field (did you mean hostnames?)"),
    ],
)
def test_faults_of_the_spec(spec: Any, expected: str) -> None:
    assert expected in problem(**spec)


def test_zero_is_no_timeout_and_bounds_no_attempt() -> None:
    [rule] = parse({"timeouts": {"request": "0s", "backendRequest": "2s"}}).rules
    assert rule.timeouts.request == 0.0
