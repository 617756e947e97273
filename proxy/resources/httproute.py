"""HTTPRoute, gateway.networking.k8s.io/v1, attached to services (GEP-1294: a mesh has no gateways here).

Defaults, bounds and combinations are those of the Gateway API's schema and its CEL rules. Differences, all of them
refusals: a parent is a Service; header filters do not touch the headers a proxy itself must answer for; a path is
written in the normal form in which requests are compared.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, StrictStr, field_validator, model_validator

from proxy.headers import CONNECTION_FIELDS, UNWRITABLE, WRITTEN_IN_REQUESTS
from proxy.path import normalise_path
from proxy.resources.fields import (
    CoreGroup,
    HeaderName,
    HeaderValue,
    Label,
    Port,
    Seconds,
    ServiceKind,
    Spec,
    Subdomain,
    Unsupported,
    check_regex,
)

WEIGHT_MAX: Final = 1_000_000
MATCHES_MAX: Final = 128  # of a whole route

Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]


class ParentRef(Spec):
    group: CoreGroup = ""
    kind: ServiceKind
    namespace: Label | None = None
    name: Label
    section_name: Unsupported = None
    port: Port | None = None


class PathMatch(Spec):
    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[StrictStr, Field(min_length=1, max_length=1024)] = "/"

    @model_validator(mode="after")
    def _well_formed(self) -> Self:
        if self.type == "RegularExpression":
            check_regex(self.value)
            return self
        normal = normalise_path(self.value)
        if not self.value.startswith("/") or normal is None:
            raise ValueError(f"value: must be a path that begins with '/', not {self.value!r:.80}")
        if normal != self.value:
            raise ValueError(f"value: must be written in normal form, {normal!r:.80}")
        return self


class _NamedValue(Spec):
    """A header or query parameter and what its value must be."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    value: Annotated[StrictStr, Field(min_length=1, max_length=4096)]

    @model_validator(mode="after")
    def _pattern(self) -> Self:
        if self.type == "RegularExpression":
            check_regex(self.value)
        return self


class HeaderValueMatch(_NamedValue):
    name: HeaderName

    @field_validator("name")
    @classmethod
    def _seen(cls, name: str) -> str:
        if name in CONNECTION_FIELDS:
            raise ValueError(f"the header {name} ends at the proxy, so no rule can match it")
        return name


class QueryParamMatch(_NamedValue):
    name: Annotated[StrictStr, Field(min_length=1, max_length=256)]


class Match(Spec):
    path: PathMatch = PathMatch()
    headers: Annotated[tuple[HeaderValueMatch, ...], Field(max_length=16)] = ()
    query_params: Annotated[tuple[QueryParamMatch, ...], Field(max_length=16)] = ()
    method: Method | None = None


class Header(Spec):
    name: HeaderName
    value: HeaderValue


class HeaderModifier(Spec):
    set: Annotated[tuple[Header, ...], Field(max_length=16)] = ()
    add: Annotated[tuple[Header, ...], Field(max_length=16)] = ()
    remove: Annotated[tuple[HeaderName, ...], Field(max_length=16)] = ()

    @field_validator("set", "add")
    @classmethod
    def _once(cls, headers: tuple[Header, ...]) -> tuple[Header, ...]:
        names = [each.name for each in headers]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the header {name} occurs twice")
        return headers

    @model_validator(mode="after")
    def _not_framing(self) -> Self:
        for name in (*(each.name for each in (*self.set, *self.add)), *self.remove):
            if name in UNWRITABLE:
                raise ValueError(f"the header {name} belongs to the proxy and cannot be changed")
        return self


def _target_path(text: str) -> str:
    if not text.startswith("/") or normalise_path(text) != text:
        raise ValueError(f"must be a path in normal form that begins with '/', not {text!r:.80}")
    return text


class PathModifier(Spec):
    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[StrictStr, Field(max_length=1024), AfterValidator(_target_path)] | None = (
        None
    )
    replace_prefix_match: Annotated[StrictStr, Field(max_length=1024)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.replace_full_path is not None) != (self.type == "ReplaceFullPath"):
            raise ValueError("replaceFullPath goes with type ReplaceFullPath, and only with it")
        if (self.replace_prefix_match is not None) != (self.type == "ReplacePrefixMatch"):
            raise ValueError("replacePrefixMatch goes with type ReplacePrefixMatch, and only with it")
        if self.replace_prefix_match:
            _target_path(self.replace_prefix_match)
        return self


class RequestRedirect(Spec):
    scheme: Literal["http", "https"] | None = None
    hostname: Subdomain | None = None
    path: PathModifier | None = None
    port: Port | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class UrlRewrite(Spec):
    hostname: Subdomain | None = None
    path: PathModifier | None = None


class Filter(Spec):
    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"]
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_redirect: RequestRedirect | None = None
    url_rewrite: UrlRewrite | None = None
    request_mirror: Unsupported = None
    extension_ref: Unsupported = None
    cors: Unsupported = None
    external_auth: Unsupported = None

    @field_validator("type", mode="before")
    @classmethod
    def _implemented(cls, value: object) -> object:
        if isinstance(value, str) and value in {"RequestMirror", "ExtensionRef", "CORS", "ExternalAuth"}:
            raise ValueError(f"{value} is not supported yet")
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        fields = {
            "RequestHeaderModifier": ("requestHeaderModifier", self.request_header_modifier),
            "ResponseHeaderModifier": ("responseHeaderModifier", self.response_header_modifier),
            "RequestRedirect": ("requestRedirect", self.request_redirect),
            "URLRewrite": ("urlRewrite", self.url_rewrite),
        }
        for kind, (name, value) in fields.items():
            if (value is not None) != (self.type == kind):
                raise ValueError(f"{name} goes with type {kind}, and only with it")
        change = self.request_header_modifier
        written = (
            () if change is None else (*(each.name for each in (*change.set, *change.add)), *change.remove)
        )
        for header in WRITTEN_IN_REQUESTS.intersection(written):
            raise ValueError(f"the header {header} of a request belongs to the proxy and cannot be changed")
        return self


class BackendRef(Spec):
    group: CoreGroup = ""
    kind: ServiceKind = "Service"
    namespace: Label | None = None
    name: Label
    port: Port | None = None
    weight: Annotated[StrictInt, Field(ge=0, le=WEIGHT_MAX)] = 1
    filters: Unsupported = None


class Timeouts(Spec):
    """Zero means no timeout (GEP-1742)."""

    request: Seconds | None = None
    backend_request: Seconds | None = None

    @model_validator(mode="after")
    def _nested(self) -> Self:
        if self.request and self.backend_request is not None and self.backend_request > self.request:
            raise ValueError("backendRequest: must not be longer than request")
        return self


class Rule(Spec):
    name: Subdomain | None = None
    matches: Annotated[tuple[Match, ...], Field(max_length=64)] = ()
    filters: Annotated[tuple[Filter, ...], Field(max_length=16)] = ()
    backend_refs: Annotated[tuple[BackendRef, ...], Field(max_length=16)] = ()
    timeouts: Timeouts = Timeouts()
    retry: Unsupported = None
    session_persistence: Unsupported = None

    @model_validator(mode="after")
    def _filters_agree(self) -> Self:
        types = [each.type for each in self.filters]
        for kind in sorted({kind for kind in types if types.count(kind) > 1}):
            raise ValueError(f"filters: {kind} occurs twice")
        if "RequestRedirect" in types and "URLRewrite" in types:
            raise ValueError("filters: RequestRedirect and URLRewrite exclude each other")
        if "RequestRedirect" in types and self.backend_refs:
            raise ValueError("backendRefs: a rule that redirects sends nothing to a backend")
        by_prefix = all(each.path.type == "PathPrefix" for each in self.matches)
        for each in self.filters:
            change = each.url_rewrite or each.request_redirect
            if change and change.path and change.path.type == "ReplacePrefixMatch" and not by_prefix:
                raise ValueError("filters: ReplacePrefixMatch needs every match to be of type PathPrefix")
        return self


def _hostname(text: str) -> str:
    name = text.removeprefix("*.")
    if not name or text.startswith("."):
        raise ValueError(f"must be a host name, the first label of which may be '*', not {text!r:.80}")
    return text


Hostname = Annotated[
    Annotated[StrictStr, AfterValidator(_hostname)],
    Field(
        max_length=253, pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    ),
]


class HTTPRouteSpec(Spec):
    """Rules for requests to the parents. `hostnames` are compared with the request's Host, without its port."""

    parent_refs: Annotated[tuple[ParentRef, ...], Field(min_length=1, max_length=32)]
    hostnames: Annotated[tuple[Hostname, ...], Field(max_length=16)] = ()
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=16)]
    use_default_gateways: Unsupported = None

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        matches = sum(max(1, len(rule.matches)) for rule in self.rules)
        if matches > MATCHES_MAX:
            raise ValueError(f"rules: {matches} matches, at most {MATCHES_MAX} in a route")
        names = [rule.name for rule in self.rules if rule.name is not None]
        for name in sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rules: the name {name} occurs twice")
        return self
