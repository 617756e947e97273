"""Views for the compiler's tests, written briefly."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from peer.catalog import PolicyEntry, PolicyVersion, ServiceInstance, ServicePort, View

PROTOCOLS: Final[Mapping[str, Literal["http", "grpc", "tcp"]]] = {
    "": "http",
    "http": "http",
    "grpc": "grpc",
    "tcp": "tcp",
}
ME, OTHER, THIRD = "me", "other", "third"


def ports(*given: int | str) -> tuple[ServicePort, ...]:
    """80, "80:8080", "5432/tcp", "80:8080/grpc"."""
    found = []
    for each in given:
        numbers, _, protocol = str(each).partition("/")
        port, _, target = numbers.partition(":")
        spoken = PROTOCOLS[protocol]
        found.append(ServicePort(name="", port=int(port), target=int(target or port), protocol=spoken))
    return tuple(found)


def instance(
    name: str, node: str = ME, /, *, on: Sequence[int | str] = ("80:8080",), **changes: Any
) -> ServiceInstance:
    namespace, _, plain = name.rpartition("/")
    given: dict[str, Any] = {
        "node": node,
        "node_name": node,
        "host": f"10.0.0.{(ME, OTHER, THIRD).index(node) + 1}",
        "inbound_port": 15006,
        "zone": "",
        "reachable": True,
        "namespace": namespace or "default",
        "name": plain,
        "account": plain,
        "address": "127.0.0.1",
        "ports": ports(*on),
        "labels": (),
        "health": "passing",
    }
    return ServiceInstance(**given | changes)


def entry(kind: str, name: str, *specs: Mapping[str, Any] | str, **metadata: Any) -> PolicyEntry:
    """A policy with one version per spec, where a string is one that nobody can read; the first is the effective
    one."""
    namespace, _, plain = name.rpartition("/")
    api = {"HTTPRoute": "gateway.networking.k8s.io/v1", "AuthorizationPolicy": "security.istio.io/v1"}
    documents = [
        {
            "apiVersion": api.get(kind, "gossamer.dev/v1"),
            "kind": kind,
            "metadata": {"name": plain, "namespace": namespace or "default"} | metadata,
            "spec": spec,
        }
        for spec in specs
    ]
    versions = tuple(
        PolicyVersion(resource=document, writer=f"w{index}", seq=1, hlc=9 - index)
        for index, document in enumerate(documents)
    )
    return PolicyEntry(kind=kind, namespace=namespace or "default", name=plain, versions=versions)


def route(
    name: str, to: str, /, *backends: str | Mapping[str, Any], port: int | None = None, **rule: Any
) -> PolicyEntry:
    """An HTTPRoute of one rule, attached to service `to` ("name" or "namespace/name")."""
    namespace, _, service = to.rpartition("/")
    parent: dict[str, Any] = {"kind": "Service", "name": service}
    parent |= {"namespace": namespace} if namespace else {}
    parent |= {"port": port} if port else {}
    refs = [{"name": each} if isinstance(each, str) else dict(each) for each in backends]
    return entry("HTTPRoute", name, {"parentRefs": [parent], "rules": [{"backendRefs": refs} | rule]})


def authz(name: str, *rules: Mapping[str, Any], action: str = "ALLOW", **spec: Any) -> PolicyEntry:
    return entry("AuthorizationPolicy", name, {"action": action, "rules": list(rules)} | spec)


def view(*items: ServiceInstance | PolicyEntry, **changes: Any) -> View:
    given: dict[str, Any] = {
        "node": ME,
        "node_name": ME,
        "trust_domain": "cluster.local",
        "zone": "",
        "services": tuple(each for each in items if isinstance(each, ServiceInstance)),
        "policies": tuple(each for each in items if isinstance(each, PolicyEntry)),
    }
    return View(**given | changes)
