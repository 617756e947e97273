"""Service files: what a host offers to the mesh and whom it wants to call on loopback ports.

As in Kubernetes, a service is a name that gathers endpoints and an account is who a workload is, so one process may
stand behind several services with one account.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    ValidationError,
    model_validator,
)

from proxy.resources.fields import Label, Labels, Port, SomeSeconds, Spec, Subdomain
from proxy.resources.wording import ResourceError, problems_of
from proxy.snapshot import AppProtocol

PORTS_MAX: Final = 32
UPSTREAMS_MAX: Final = 64
SERVICES_MAX: Final = 1_000  # in one file
CHECK_TIMEOUT_S: Final = 1.0


class _Plain(Spec):
    """Service files are written in snake_case."""

    model_config: ClassVar[ConfigDict] = ConfigDict(alias_generator=None)


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f"must be an IP address, not {text!r:.80}") from None


def _check_path(text: str) -> str:
    if not text.startswith("/") or any(not 0x20 < ord(each) < 0x7F for each in text):
        raise ValueError("must be a path that begins with '/'")
    return text


def _true(value: object) -> object:
    if value is not True:
        raise ValueError("must be true")
    return value


class _PortModel(_Plain):
    name: Label | None = None
    port: Port
    target: Port | None = None
    protocol: AppProtocol | None = None


class _CheckModel(_Plain):
    http: Annotated[StrictStr, Field(max_length=1024), AfterValidator(_check_path)] | None = None
    tcp: Annotated[Literal[True], BeforeValidator(_true)] | None = None
    exec: Annotated[
        tuple[Annotated[StrictStr, Field(min_length=1, max_length=4096)], ...], Field(min_length=1, max_length=64)
    ] | None = None  # fmt: skip
    interval: SomeSeconds = 5.0
    timeout: SomeSeconds | None = None  # a second, or the interval where that is shorter

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(each is not None for each in (self.http, self.tcp, self.exec)) != 1:
            raise ValueError("exactly one of http, tcp and exec is required")
        if self.timeout is not None and self.timeout > self.interval:
            raise ValueError("timeout: must not be longer than interval")
        return self


class _UpstreamModel(_Plain):
    service: Label
    namespace: Label | None = None
    port: Port | None = None
    local_port: Port


class _ServiceModel(_Plain):
    name: Label
    namespace: Label = "default"
    account: Annotated[Subdomain, Field(max_length=63)] | None = None
    address: Annotated[StrictStr, AfterValidator(_address)] = "127.0.0.1"
    port: Port | None = None
    ports: Annotated[tuple[_PortModel, ...], Field(min_length=1, max_length=PORTS_MAX)] = ()
    protocol: AppProtocol = "http"
    labels: Labels = Field(default_factory=dict)
    check: _CheckModel | None = None
    upstreams: Annotated[tuple[_UpstreamModel, ...], Field(max_length=UPSTREAMS_MAX)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.port is None and not self.ports:
            raise ValueError("port or ports is required (port is short for one entry of ports)")
        _unique("ports: the port", [each.port for each in self.ports])
        _unique("ports: the name", [each.name for each in self.ports if each.name])
        _unique("upstreams: the local_port", [each.local_port for each in self.upstreams])
        return self


def _unique(what: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{what} {value} occurs twice")


class _Document(_Plain):
    service: _ServiceModel


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSpec:
    """`port` is the service's, `target` the application's."""

    name: str  # "" when it has none
    port: int
    target: int
    protocol: AppProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSpec:
    """An active health check; exactly one of `http` (a path), `tcp` and `exec` (a command) is given."""

    http: str | None = None
    tcp: bool = False
    exec: tuple[str, ...] = ()
    interval_s: float = 5.0
    timeout_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSpec:
    """A loopback port that is another service. `port` 0: the service's first HTTP port, or its first."""

    namespace: str
    service: str
    port: int
    local_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """A service with all defaults filled in."""

    namespace: str
    name: str
    account: str
    address: str
    ports: tuple[PortSpec, ...]
    labels: tuple[tuple[str, str], ...] = ()  # in order of key
    check: CheckSpec | None = None
    upstreams: tuple[UpstreamSpec, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_service_documents(documents: Sequence[Mapping[str, Any]], source: str) -> tuple[ServiceSpec, ...]:
    """The services of a file. Raises ResourceError with every fault found, none of them accepted:
    `cart.yaml: document 1: service default/cart: service.ports[0].port: must be <= 65535`."""
    problems: list[str] = []
    services: list[ServiceSpec] = []
    if len(documents) > SERVICES_MAX:
        raise ResourceError([f"{source}: {len(documents)} documents, at most {SERVICES_MAX}"])
    for number, document in enumerate(documents, 1):
        prefix = f"{source}: document {number}: {_name_of(document)}"
        if isinstance(document, Mapping) and "kind" in document and "service" not in document:
            problems.append(f"{prefix}this is a resource, not a service: publish it with `gossamer apply`")
            continue
        try:
            service = _spec(_Document.model_validate(document).service)
        except ValidationError as error:
            problems += [f"{prefix}{each}" for each in problems_of(error, "")]
            continue
        if any(service.key == other.key for other in services):
            problems.append(f"{source}: document {number}: service {service.key}: is in the file twice")
        services.append(service)
    if not documents:
        problems.append(f"{source}: holds no service")
    if problems:
        raise ResourceError(problems)
    return tuple(services)


def _name_of(document: Mapping[str, Any]) -> str:
    service = document.get("service") if isinstance(document, Mapping) else None
    if not isinstance(service, Mapping) or not isinstance(service.get("name"), str):
        return ""
    namespace = service.get("namespace", "default")
    return f"service {namespace if isinstance(namespace, str) else '?'}/{service['name']}: "[:200]


def _spec(model: _ServiceModel) -> ServiceSpec:
    ports = model.ports
    if model.port is not None and all(each.port != model.port for each in ports):
        ports = (_PortModel(port=model.port), *ports)
    return ServiceSpec(
        namespace=model.namespace,
        name=model.name,
        account=model.account or model.name,
        address=model.address,
        ports=tuple(
            PortSpec(
                name=each.name or "",
                port=each.port,
                target=each.target or each.port,
                protocol=each.protocol or model.protocol,
            )
            for each in ports
        ),
        labels=tuple(sorted(model.labels.items())),
        check=_check(model.check),
        upstreams=tuple(
            UpstreamSpec(
                namespace=each.namespace or model.namespace,
                service=each.service,
                port=each.port or 0,
                local_port=each.local_port,
            )
            for each in model.upstreams
        ),
    )


def _check(model: _CheckModel | None) -> CheckSpec | None:
    if model is None:
        return None
    return CheckSpec(
        http=model.http,
        tcp=model.tcp is True,
        exec=model.exec or (),
        interval_s=model.interval,
        timeout_s=min(CHECK_TIMEOUT_S, model.interval) if model.timeout is None else model.timeout,
    )
