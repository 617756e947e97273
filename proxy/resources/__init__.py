"""What users write: routes, policies and services as YAML, checked once and then trusted.

The shapes are those people know: Gateway API's HTTPRoute, Istio's AuthorizationPolicy, Envoy's names in
TrafficPolicy. What those specifications have and this version does not is refused by name, because a field that is
silently ignored is a policy that is silently not enforced.

Invariant: a `Resource` or `ServiceSpec` exists only if every rule of its kind holds; nothing here touches a file or
the network.
"""

from proxy.resources.resource import (
    KINDS,
    MESH_CONFIG_NAME,
    ROOT_NAMESPACE,
    Resource,
    canonical_kind,
    parse_documents,
    parse_resource,
)
from proxy.resources.service import CheckSpec, PortSpec, ServiceSpec, UpstreamSpec, parse_service_documents
from proxy.resources.wording import ResourceError
from proxy.resources.yaml_text import load_yaml

__all__ = [
    "KINDS",
    "MESH_CONFIG_NAME",
    "ROOT_NAMESPACE",
    "CheckSpec",
    "PortSpec",
    "Resource",
    "ResourceError",
    "ServiceSpec",
    "UpstreamSpec",
    "canonical_kind",
    "load_yaml",
    "parse_documents",
    "parse_resource",
    "parse_service_documents",
]
