"""AuthorizationPolicy: Istio's shape, and what could not mean what it says refused."""

from typing import Any

import pytest

from proxy.resources import Resource, ResourceError, parse_resource
from proxy.resources.authorization import AuthorizationPolicySpec


def parse(annotations: dict[str, str] | None = None, **spec: Any) -> Resource:
    return parse_resource(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "annotations": annotations or {}},
            "spec": spec,
        }
    )


def problem(**spec: Any) -> str:
    with pytest.raises(ResourceError) as caught:
        parse(**spec)
    return str(caught.value).replace("AuthorizationPolicy default/p: ", "")


def rule(**fields: Any) -> dict[str, Any]:
    return {"rules": [fields]}


def source(**fields: Any) -> dict[str, Any]:
    return rule(**{"from": [{"source": fields}]})


def operation(**fields: Any) -> dict[str, Any]:
    return rule(to=[{"operation": fields}])


def test_everything_that_is_implemented_is_taken() -> None:
    resource = parse(
        annotations={"istio.io/dry-run": "true"},
        selector={"matchLabels": {"app": "cart"}},
        action="DENY",
        rules=[
            {
                "from": [
                    {"source": {"principals": ["*/sa/a"], "notNamespaces": ["x"], "ipBlocks": ["10.0.0.0/8"]}}
                ],
                "to": [
                    {
                        "operation": {
                            "hosts": ["*.a"],
                            "ports": ["80"],
                            "methods": ["GET"],
                            "notPaths": ["/a/*"],
                        }
                    }
                ],
                "when": [{"key": "request.headers[x-user]", "values": ["a*"], "notValues": ["*b"]}],
            },
            {},
        ],
    )
    assert resource.dry_run
    assert isinstance(resource.spec, AuthorizationPolicySpec)
    assert resource.spec.rules[0].from_[0].source.principals == ("*/sa/a",)
    assert resource.spec.rules[1].model_fields_set == set()


def test_an_empty_spec_allows_nothing() -> None:
    spec = parse().spec
    assert isinstance(spec, AuthorizationPolicySpec)
    assert (spec.action, spec.rules, spec.selector, spec.target_refs) == ("ALLOW", (), None, ())


@pytest.mark.parametrize("text", ["/a", "/a/*", "/.*", "*.php", "*/x", "*", "/a+b", "/..a*"])
def test_paths_that_can_match(text: str) -> None:
    parse(**operation(paths=[text]))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"action": "CUSTOM"}, "spec.action: CUSTOM is not supported yet"),
        ({"action": "deny"}, "spec.action: must be one of ALLOW, DENY, not 'deny'"),
        ({"provider": {"name": "x"}}, "spec.provider: is not supported yet"),
        ({"targetRef": {}}, "spec.targetRef: is not supported yet"),
        (
            {"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [{"kind": "Service", "name": "x"}]},
            "spec: selector and targetRefs exclude each other",
        ),
        ({"selector": {}}, "spec.selector.matchLabels: is required"),
        ({"selector": {"matchLabels": {}}}, "spec.selector.matchLabels: must not be empty"),
        ({"targetRefs": [{"kind": "Gateway", "name": "x"}]}, "spec.targetRefs[0].kind: must be Service"),
        (rule(**{"from": []}), "spec.rules[0].from: must not be empty"),
        (rule(**{"from": None}), "spec.rules[0].from: must be a list, not nothing"),
        (rule(**{"from": [{}]}), "spec.rules[0].from[0].source: is required"),
        (source(), "spec.rules[0].from[0].source: must not be empty"),
        (source(principals=[]), "source.principals: must not be empty"),
        (source(principals=[""]), "source.principals[0]: must not be empty"),
        (source(principals="x"), "source.principals: must be a list, not a string"),
        (source(principals=["spiffe://td/ns/a/sa/b"]), "must be written without spiffe://"),
        (source(requestPrincipals=["*"]), "source.requestPrincipals: is not supported yet"),
        (source(remoteIpBlocks=["10.0.0.1"]), "source.remoteIpBlocks: is not supported yet"),
        (source(serviceAccounts=["a"]), "source.serviceAccounts: is not supported yet"),
        (source(ipBlocks=["10.0.0.300"]), "source.ipBlocks[0]: '10.0.0.300' does not appear to be"),
        (source(principal=["x"]), "source.principal: unknown field (did you mean principals?)"),
        (operation(), "spec.rules[0].to[0].operation: must not be empty"),
        (operation(paths=["admin"]), "operation.paths[0]: must begin with '/' or '*'"),
        (operation(paths=["/a//b"]), "never matches as written"),
        (operation(paths=["/%61"]), "never matches as written"),
        (operation(paths=["/a/../*"]), "never matches as written"),
        (operation(paths=["/a?b"]), "never matches as written"),
        (operation(paths=["/a/{*}/b"]), "path templates"),
        (operation(paths=["/a*b"]), "'*' is a wildcard at the beginning or the end only"),
        (operation(paths=["*a*"]), "'*' is a wildcard at the beginning or the end only"),
        (operation(ports=[80]), "operation.ports[0]: must be a string, not the number 80"),
        (operation(ports=["http"]), 'must be a port number in quotes, such as "8080", not \'http\''),
        (operation(ports=["70000"]), "must be a port number"),
        (rule(when=[{"key": "source.ip"}]), "when[0]: values or notValues is required"),
        (rule(when=[{"key": "source.ip", "values": ["x"]}]), "when[0]: 'x' does not appear to be"),
        (rule(when=[{"key": "destination.port", "values": ["x"]}]), "when[0]: must be a port number"),
        (rule(when=[{"key": "request.auth.claims[a]"}]), "the key request.auth.claims[a] is not supported yet"),
        (rule(when=[{"key": "request.header[a]", "values": ["x"]}]), "when[0].key: unknown key 'request.header[a]'"),
    ],
)  # fmt: skip
def test_faults(spec: Any, expected: str) -> None:
    assert expected in problem(**spec)


def test_the_dry_run_annotation_is_true_or_false() -> None:
    assert not parse(annotations={"istio.io/dry-run": "false"}).dry_run
    with pytest.raises(ResourceError, match='must be "true" or "false"'):
        parse(annotations={"istio.io/dry-run": "yes"})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "Transfer-Encoding",
            "the header transfer-encoding ends at the proxy, so no request is judged by it",
        ),
        ("x-forwarded-client_cert", "is dropped from requests: use source.principal"),
    ],
)
def test_headers_no_request_is_judged_by_are_refused(name: str, why: str) -> None:
    assert why in problem(**rule(when=[{"key": f"request.headers[{name}]", "values": ["x"]}]))


def test_headers_that_ask_something_of_the_connection_are_taken() -> None:
    for name in ("Upgrade", "Expect", "Content-Length"):
        parse(**rule(when=[{"key": f"request.headers[{name}]", "values": ["x"]}]))
