"""AuthorizationPolicy, security.istio.io/v1, in Istio's shape and with Istio's meaning (proxy/authorize.py).

An empty list, an empty source and an empty operation are refused as Istio refuses them: it would be unclear whether
they match all or nothing. So is what could never match as written: a principal with `spiffe://`, a path that is not
in normal form, a `*` in the middle of a pattern.
"""

from ipaddress import ip_network
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StrictStr, field_validator, model_validator

from proxy.headers import CONNECTION_FIELDS, FORWARDED_CERT_SPELLINGS
from proxy.path import normalise_path
from proxy.resources.fields import Labels, Spec, TargetRef, Unsupported

DRY_RUN_ANNOTATION: Final = "istio.io/dry-run"
VALUES_MAX: Final = 256
_PLAIN_KEYS: Final = (
    "source.ip",
    "source.namespace",
    "source.principal",
    "destination.port",
    "connection.sni",
)
_ISTIO_KEYS: Final = (
    "remote.ip",
    "request.auth.",
    "destination.ip",
    "source.serviceAccount",
    "experimental.",
)


def _pattern(text: str) -> str:
    literal = text[1:] if text.startswith("*") else text.removesuffix("*")
    if "*" in literal:
        raise ValueError(f"'*' is a wildcard at the beginning or the end only: {text!r:.80}")
    return text


def _principal(text: str) -> str:
    if text.startswith("spiffe:"):
        raise ValueError(
            f"must be written without spiffe://, as <trust domain>/ns/<namespace>/sa/<account>: {text!r:.80}"
        )
    return text


def _path(text: str) -> str:
    if "{" in text:
        raise ValueError(f"path templates ({{*}}, {{**}}) are not supported yet: {text!r:.80}")
    literal = text.strip("*")
    if not literal:
        return text
    # A suffix may begin, and a prefix end, inside a segment: complete it with a plain character before judging.
    whole = ("/x" if text.startswith("*") else "") + literal + ("x" if text.endswith("*") else "")
    if not whole.startswith("/"):
        raise ValueError(f"must begin with '/' or '*': {text!r:.80}")
    normal = normalise_path(whole)
    if normal != whole:
        raise ValueError(
            f"never matches as written, since requests are compared in normal form: {text!r:.80}"
        )
    return text


def _cidr(text: str) -> str:
    ip_network(text, strict=False)
    return text


def _port(text: str) -> str:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= 65535):
        raise ValueError(f'must be a port number in quotes, such as "8080", not {text!r:.20}')
    return text


Text = Annotated[StrictStr, Field(min_length=1, max_length=1024)]
Pattern = Annotated[Text, AfterValidator(_pattern)]
_Several = Field(min_length=1, max_length=VALUES_MAX)
Patterns = Annotated[tuple[Pattern, ...], _Several]
Principals = Annotated[tuple[Annotated[Pattern, AfterValidator(_principal)], ...], _Several]
Paths = Annotated[tuple[Annotated[Text, AfterValidator(_path), AfterValidator(_pattern)], ...], _Several]
Blocks = Annotated[tuple[Annotated[Text, AfterValidator(_cidr)], ...], _Several]
Ports = Annotated[tuple[Annotated[Text, AfterValidator(_port)], ...], _Several]


class SourceSpec(Spec):
    principals: Principals = ()
    not_principals: Principals = ()
    namespaces: Patterns = ()
    not_namespaces: Patterns = ()
    ip_blocks: Blocks = ()
    not_ip_blocks: Blocks = ()
    request_principals: Unsupported = None
    not_request_principals: Unsupported = None
    remote_ip_blocks: Unsupported = None
    not_remote_ip_blocks: Unsupported = None
    service_accounts: Unsupported = None
    not_service_accounts: Unsupported = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("must not be empty")
        return self


class OperationSpec(Spec):
    hosts: Patterns = ()
    not_hosts: Patterns = ()
    ports: Ports = ()
    not_ports: Ports = ()
    methods: Patterns = ()
    not_methods: Patterns = ()
    paths: Paths = ()
    not_paths: Paths = ()

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("must not be empty")
        return self


class From(Spec):
    source: SourceSpec


class To(Spec):
    operation: OperationSpec


class When(Spec):
    key: Text
    values: Patterns = ()
    not_values: Patterns = ()

    @field_validator("key")
    @classmethod
    def _known(cls, key: str) -> str:
        header = (
            key.startswith("request.headers[") and key.endswith("]") and len(key) > len("request.headers[]")
        )
        if header:
            name = key[len("request.headers[") : -1].lower()
            if name in CONNECTION_FIELDS:
                raise ValueError(f"the header {name} ends at the proxy, so no request is judged by it")
            if name in FORWARDED_CERT_SPELLINGS:
                raise ValueError(f"the header {name} is dropped from requests: use source.principal")
            return key
        if key in _PLAIN_KEYS:
            return key
        if key.startswith(_ISTIO_KEYS):
            raise ValueError(f"the key {key} is not supported yet")
        known = ", ".join(("request.headers[name]", *_PLAIN_KEYS))
        raise ValueError(f"unknown key {key!r:.80}, must be one of {known}")

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if not self.values and not self.not_values:
            raise ValueError("values or notValues is required")
        check = {"source.ip": _cidr, "destination.port": _port, "source.principal": _principal}.get(self.key)
        if check is not None:
            for each in (*self.values, *self.not_values):
                check(each)
        return self


class RuleSpec(Spec):
    """An empty rule matches everything."""

    from_: Annotated[tuple[From, ...], Field(min_length=1, max_length=VALUES_MAX, alias="from")] = ()
    to: Annotated[tuple[To, ...], Field(min_length=1, max_length=VALUES_MAX)] = ()
    when: Annotated[tuple[When, ...], Field(min_length=1, max_length=VALUES_MAX)] = ()


class Selector(Spec):
    match_labels: Annotated[Labels, Field(min_length=1)]


class AuthorizationPolicySpec(Spec):
    """Without selector and targetRefs it holds for its namespace; in the root namespace for the whole mesh."""

    selector: Selector | None = None
    target_refs: Annotated[tuple[TargetRef, ...], Field(min_length=1, max_length=16)] = ()
    target_ref: Unsupported = None
    action: Literal["ALLOW", "DENY"] = "ALLOW"
    rules: Annotated[tuple[RuleSpec, ...], Field(max_length=VALUES_MAX)] = ()
    provider: Unsupported = None

    @field_validator("action", mode="before")
    @classmethod
    def _implemented(cls, value: object) -> object:
        if isinstance(value, str) and value in {"AUDIT", "CUSTOM"}:
            raise ValueError(f"{value} is not supported yet")
        return value

    @model_validator(mode="after")
    def _one_selection(self) -> Self:
        if self.selector is not None and self.target_refs:
            raise ValueError("selector and targetRefs exclude each other")
        return self
