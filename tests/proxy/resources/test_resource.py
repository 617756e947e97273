"""The envelope: kinds, names, metadata, what is kept of a document, and hostile documents."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.resources import KINDS, ResourceError, canonical_kind, load_yaml, parse_documents, parse_resource
from proxy.resources.resource import RESOURCE_BYTES_MAX

ROUTE: dict[str, Any] = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "cart"},
    "spec": {
        "parentRefs": [{"kind": "Service", "name": "cart"}],
        "rules": [{"backendRefs": [{"name": "cart"}]}],
    },
}


def changed(**changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(ROUTE) | changes
    return {key: value for key, value in document.items() if value is not ...}


def problems(*documents: Any) -> tuple[str, ...]:
    with pytest.raises(ResourceError) as caught:
        parse_documents(documents, "f.yaml")
    return caught.value.problems


def test_a_document_is_kept_as_written_with_its_namespace() -> None:
    server = {"uid": "x", "creationTimestamp": "now", "labels": {"a": "b"}, "name": "cart"}
    resource = parse_resource(changed(metadata=server, status={"parents": []}))
    assert resource.key == "HTTPRoute/default/cart"
    assert resource.document == changed(
        metadata={"name": "cart", "namespace": "default", "labels": {"a": "b"}}
    )
    assert parse_resource(resource.document).document == resource.document
    json.dumps(resource.document)


def test_the_document_does_not_share_with_what_was_given() -> None:
    given_document = changed()
    resource = parse_resource(given_document)
    given_document["spec"]["rules"].clear()
    assert resource.document["spec"]["rules"]


@pytest.mark.parametrize(
    "word", ["httproute", "HTTPRoutes", "HTTPROUTE", "httproutes.gateway.networking.k8s.io", "httproute.v1"]
)
def test_kinds_are_found_however_they_are_typed(word: str) -> None:
    assert canonical_kind(word) == "HTTPRoute"


def test_irregular_plurals_and_unknown_kinds() -> None:
    assert canonical_kind("authorizationpolicies") == "AuthorizationPolicy"
    assert canonical_kind("trafficpolicy") == "TrafficPolicy"
    assert canonical_kind("meshconfig") == "MeshConfig"
    with pytest.raises(ResourceError, match="unknown kind 'route', must be one of HTTPRoute, "):
        canonical_kind("route")
    assert all(canonical_kind(kind) == kind for kind in KINDS)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (changed(kind=...), "kind: is required"),
        (changed(kind=5), "kind: must be a string"),
        (changed(kind="Gateway"), "Gateway default/cart: the kind Gateway is not supported yet"),
        (changed(kind="Deployment"), "Deployment default/cart: unknown kind, must be one of HTTPRoute, "),
        (
            changed(apiVersion="gateway.networking.k8s.io/v1beta1"),
            "HTTPRoute default/cart: apiVersion: must be gateway.networking.k8s.io/v1, not 'gateway.netw",
        ),
        (changed(metadata=...), "HTTPRoute: metadata: must be a mapping, not nothing"),
        (changed(metadata={}), "HTTPRoute: metadata.name: is required"),
        (changed(metadata={"name": "Cart"}), "HTTPRoute default/Cart: metadata.name: must be DNS labels"),
        (changed(metadata={"name": "a" * 254}), "metadata.name: must be DNS labels"),
        (
            changed(metadata={"name": "x", "namespace": "a.b"}),
            "HTTPRoute a.b/x: metadata.namespace: must be a DNS label",
        ),
        (
            changed(metadata={"name": "x", "namespace": 5}),
            "metadata.namespace: must be a string, not the number 5",
        ),
        (
            changed(metadata={"name": "x", "label": {}}),
            "metadata.label: unknown field (did you mean labels?)",
        ),
        (
            changed(metadata={"name": "x", "labels": {"a": 1}}),
            "metadata.labels.a: must be a string, not the number 1",
        ),
        (changed(spec=...), "HTTPRoute default/cart: spec: is required"),
        (changed(spec=None), "HTTPRoute default/cart: spec: must be a mapping, not nothing"),
        (changed(specs={}), "HTTPRoute default/cart: specs: unknown field"),
        (
            {"service": {"name": "x"}},
            "this is a service, not a resource: register it with `gossamer service register`",
        ),
        (5, "must be a mapping, not the number 5"),
    ],
)
def test_envelope_errors(document: Any, problem: str) -> None:
    found = problems(document)
    assert any(each.startswith("f.yaml: document 1: ") and problem in each for each in found), found


def test_every_fault_of_every_document_is_named_and_nothing_is_accepted() -> None:
    text = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: ok}
spec: {parentRefs: [{kind: Service, name: cart}], rules: [{}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart}
spec:
  parentRefs: [{kind: Service, name: cart}]
  rules:
    - backendRefs: [{name: a, port: 80}, {name: b, port: 80, weight: -1}]
      timeout: {request: 5s}
    - matches: [{path: {value: v2}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: cart, namespace: shop}
spec: {action: AUDIT}
"""
    assert problems(*load_yaml(text, "f.yaml")) == (
        "f.yaml: document 2: HTTPRoute default/cart: spec.rules[0].backendRefs[1].weight: must be >= 0",
        "f.yaml: document 2: HTTPRoute default/cart: spec.rules[0].timeout: unknown field (did you mean timeouts?)",
        (
            "f.yaml: document 2: HTTPRoute default/cart: spec.rules[1].matches[0].path: "
            "value: must be a path that begins with '/', not 'v2'"
        ),
        "f.yaml: document 3: AuthorizationPolicy shop/cart: spec.action: AUDIT is not supported yet",
    )


def test_a_file_must_hold_something_and_no_resource_twice() -> None:
    assert problems() == ("f.yaml: holds no resource",)
    assert problems(ROUTE, ROUTE) == ("f.yaml: document 2: HTTPRoute default/cart: is in the file twice",)


def test_a_resource_is_bounded() -> None:
    rules = [{"matches": [{"headers": [{"name": "x", "value": "v" * 4096}]}]}] * 16
    big = changed(
        spec=ROUTE["spec"] | {"rules": rules}, metadata={"name": "x", "annotations": {"a": "x" * 50_000}}
    )
    [problem] = problems(big)
    assert f"at most {RESOURCE_BYTES_MAX}" in problem


def test_the_mesh_config_is_one_and_lives_in_the_root_namespace() -> None:
    config = {
        "apiVersion": "gossamer.dev/v1",
        "kind": "MeshConfig",
        "metadata": {"name": "default"},
        "spec": {},
    }
    assert parse_resource(config).key == "MeshConfig/gossamer-system/default"
    for metadata in ({"name": "other"}, {"name": "default", "namespace": "default"}):
        [problem] = problems(config | {"metadata": metadata})
        assert problem.endswith("metadata: the one MeshConfig is gossamer-system/default")


FIELDS = [
    *(
        "parentRefs",
        "rules",
        "matches",
        "path",
        "name",
        "filters",
        "from",
        "to",
        "when",
        "key",
        "targetRefs",
        "type",
    ),
    *(
        "retries",
        "timeouts",
        "loadBalancer",
        "source",
        "operation",
        "value",
        "values",
        "selector",
        "outlierDetection",
    ),
]
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.just(-(10**400)),  # JSON can say it
        st.floats(),
        st.text(max_size=6),
        st.binary(max_size=4),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=20,
)


@given(st.sampled_from(sorted(KINDS)), JSON, JSON)
def test_no_document_is_more_than_an_error(kind: str, metadata: object, spec: object) -> None:
    for each in (metadata, {"name": "x"}):
        document = {"apiVersion": KINDS[kind][0], "kind": kind, "metadata": each, "spec": spec}
        try:
            resource = parse_resource(document)
        except ResourceError:
            continue
        json.dumps(resource.document)
