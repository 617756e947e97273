"""Resources: the envelope (apiVersion, kind, metadata, spec) and the kinds there are.

`Resource.document` is what the author wrote, less what a server adds (`status`, `metadata.uid` and the like), with
the namespace filled in: it is what is signed, replicated and given back by `gossamer get`.

MeshConfig exists once, as `gossamer-system/default`; that namespace is the root namespace, in which an
AuthorizationPolicy without selection holds for the whole mesh (as Istio's root namespace), and where Capabilities are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from pydantic import Field, StrictStr, ValidationError

from proxy.resources.authorization import DRY_RUN_ANNOTATION, AuthorizationPolicySpec
from proxy.resources.capability import CAPABILITY, CapabilitySpec
from proxy.resources.fields import Label, Labels, Spec, Subdomain, kind_of
from proxy.resources.httproute import HTTPRouteSpec
from proxy.resources.traffic import MeshConfigSpec, TrafficPolicySpec
from proxy.resources.wording import ResourceError, problems_of

ROOT_NAMESPACE: Final = "gossamer-system"
MESH_CONFIG_NAME: Final = "default"
RESOURCE_BYTES_MAX: Final = 100 * 1024
RESOURCES_MAX: Final = 1_000  # in one file

ResourceSpec = HTTPRouteSpec | AuthorizationPolicySpec | TrafficPolicySpec | MeshConfigSpec | CapabilitySpec

# kind -> (apiVersion, schema of spec)
KINDS: Final[Mapping[str, tuple[str, type[ResourceSpec]]]] = {
    "HTTPRoute": ("gateway.networking.k8s.io/v1", HTTPRouteSpec),
    "AuthorizationPolicy": ("security.istio.io/v1", AuthorizationPolicySpec),
    "TrafficPolicy": ("gossamer.dev/v1", TrafficPolicySpec),
    "MeshConfig": ("gossamer.dev/v1", MeshConfigSpec),
    CAPABILITY: ("gossamer.dev/v1", CapabilitySpec),
}
# Known to the design or to the specifications, not here yet.
_PLANNED: Final = frozenset(
    {
        "GRPCRoute", "TCPRoute", "TLSRoute", "RateLimit", "FaultInjection", "ReferenceGrant", "Gateway",
        "PeerAuthentication", "RequestAuthentication", "DestinationRule", "VirtualService", "ServiceEntry",
    }
)  # fmt: skip
_SERVER_METADATA: Final = frozenset(
    {
        "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp",
        "ownerReferences",
    }
)  # fmt: skip
_ENVELOPE: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


class _Metadata(Spec):
    name: Subdomain
    namespace: Label = "default"
    labels: Labels = Field(default_factory=dict)
    annotations: Annotated[dict[StrictStr, StrictStr], Field(max_length=64)] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A valid resource. `document` is plain JSON data."""

    kind: str
    api_version: str
    namespace: str
    name: str
    spec: ResourceSpec
    document: Mapping[str, Any]
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """`<Kind>/<namespace>/<name>`."""
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def dry_run(self) -> bool:
        """Istio's annotation: evaluate and report, enforce nothing."""
        return self.annotations.get(DRY_RUN_ANNOTATION) == "true"


def canonical_kind(text: str) -> str:
    """The kind meant by `httproute`, `HTTPRoutes`, `httproutes.gateway.networking.k8s.io`. Raises ResourceError."""
    word = text.partition(".")[0].lower()
    for kind in KINDS:
        name = kind.lower()
        if word in {name, f"{name}s", f"{name.removesuffix('y')}ies"}:
            return kind
    raise ResourceError([f"unknown kind {text!r:.60}, must be one of {', '.join(KINDS)}"])


def parse_documents(documents: Sequence[Mapping[str, Any]], source: str) -> tuple[Resource, ...]:
    """The resources of a file. Raises ResourceError with every fault found, none of them accepted:
    `canary.yaml: document 2: HTTPRoute default/cart: spec.rules[0].backendRefs[1].weight: must be >= 0`."""
    if len(documents) > RESOURCES_MAX:
        raise ResourceError([f"{source}: {len(documents)} documents, at most {RESOURCES_MAX}"])
    problems: list[str] = []
    resources: dict[str, Resource] = {}
    for number, document in enumerate(documents, 1):
        try:
            resource = parse_resource(document)
        except ResourceError as error:
            problems += [f"{source}: document {number}: {each}" for each in error.problems]
            continue
        if resource.key in resources:
            problems.append(f"{source}: document {number}: {_title(document)}is in the file twice")
        resources[resource.key] = resource
    if not documents:
        problems.append(f"{source}: holds no resource")
    if problems:
        raise ResourceError(problems)
    return tuple(resources.values())


def parse_resource(document: Mapping[str, Any]) -> Resource:
    """One resource. Raises ResourceError: `HTTPRoute default/cart: spec.rules: is required`."""
    if not isinstance(document, Mapping):
        raise ResourceError([f"must be a mapping, not {kind_of(document)}"])
    title = _title(document)
    kind, api_version, schema = _kind(document, title)
    problems = [f"{title}{name}: unknown field" for name in map(str, document) if name not in _ENVELOPE]
    metadata = spec = None
    try:
        metadata = _Metadata.model_validate(_own_metadata(document, kind))
    except ValidationError as error:
        problems += [f"{title}{each}" for each in problems_of(error, "metadata")]
    try:
        if "spec" not in document:
            problems.append(f"{title}spec: is required")
        else:
            spec = schema.model_validate(document["spec"])
    except ValidationError as error:
        problems += [f"{title}{each}" for each in problems_of(error, "spec")]
    if metadata is not None:
        problems += [f"{title}{each}" for each in _metadata_problems(kind, metadata)]
    if problems or metadata is None or spec is None:
        raise ResourceError(problems)
    plain = _document(document, kind, api_version, metadata)
    size = len(json.dumps(plain, separators=(",", ":")))
    if size > RESOURCE_BYTES_MAX:
        raise ResourceError([f"{title}is of {size} bytes, at most {RESOURCE_BYTES_MAX}"])
    return Resource(
        kind=kind,
        api_version=api_version,
        namespace=metadata.namespace,
        name=metadata.name,
        spec=spec,
        document=plain,
        annotations=dict(metadata.annotations),
    )


def _title(document: Mapping[str, Any]) -> str:
    """`HTTPRoute default/cart: `, with what there is of it."""
    kind = document.get("kind")
    if not isinstance(kind, str):
        return ""
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(metadata, Mapping) or not isinstance(name, str):
        return f"{kind:.60}: "
    namespace = metadata.get("namespace", _default_namespace(kind))
    return f"{kind:.60} {namespace if isinstance(namespace, str) else '?':.63}/{name:.253}: "


def _default_namespace(kind: str) -> str:
    return ROOT_NAMESPACE if kind in {"MeshConfig", CAPABILITY} else "default"


def _kind(document: Mapping[str, Any], title: str) -> tuple[str, str, type[ResourceSpec]]:
    kind, api_version = document.get("kind"), document.get("apiVersion")
    if "service" in document and kind is None:
        raise ResourceError(
            ["this is a service, not a resource: register it with `gossamer service register`"]
        )
    if not isinstance(kind, str):
        raise ResourceError([f"kind: {'is required' if kind is None else 'must be a string'}"])
    if kind not in KINDS:
        if kind in _PLANNED:
            raise ResourceError([f"{title}the kind {kind} is not supported yet"])
        raise ResourceError([f"{title}unknown kind, must be one of {', '.join(KINDS)}"])
    wanted, schema = KINDS[kind]
    if api_version != wanted:
        raise ResourceError([f"{title}apiVersion: must be {wanted}, not {api_version!r:.60}"])
    return kind, wanted, schema


def _own_metadata(document: Mapping[str, Any], kind: str) -> Any:
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        return metadata
    return {"namespace": _default_namespace(kind)} | {
        name: value for name, value in metadata.items() if name not in _SERVER_METADATA
    }


def _metadata_problems(kind: str, metadata: _Metadata) -> list[str]:
    problems = []
    dry_run = metadata.annotations.get(DRY_RUN_ANNOTATION)
    if dry_run not in {None, "true", "false"}:
        problems.append(f'metadata.annotations[{DRY_RUN_ANNOTATION!r}]: must be "true" or "false"')
    if dry_run == "true" and kind != "AuthorizationPolicy":
        problems.append(f"metadata.annotations[{DRY_RUN_ANNOTATION!r}]: is not supported for {kind}")
    if kind == "MeshConfig" and (metadata.namespace, metadata.name) != (ROOT_NAMESPACE, MESH_CONFIG_NAME):
        problems.append(f"metadata: the one MeshConfig is {ROOT_NAMESPACE}/{MESH_CONFIG_NAME}")
    if kind == CAPABILITY and metadata.namespace != ROOT_NAMESPACE:
        problems.append(
            f"metadata.namespace: must be {ROOT_NAMESPACE}; spec.namespaces says what a Capability is about"
        )
    return problems


def _document(
    document: Mapping[str, Any], kind: str, api_version: str, metadata: _Metadata
) -> dict[str, Any]:
    kept: dict[str, Any] = {"name": metadata.name, "namespace": metadata.namespace}
    if metadata.labels:
        kept["labels"] = dict(metadata.labels)
    if metadata.annotations:
        kept["annotations"] = dict(metadata.annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": kept, "spec": _plain(document["spec"])}


def _plain(value: Any) -> Any:
    """A copy as JSON data. The schema has already bounded depth and leaves."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
