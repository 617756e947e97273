"""TrafficPolicy and MeshConfig, gossamer.dev/v1.

TrafficPolicy says how a service is to be called: balancing, timeouts, retries, circuit breaking, passive health.
Names and defaults inside are Envoy's (`consecutive_5xx`, `max_connections`); each may be written in camelCase too,
as Kubernetes users expect. What is not given is the default of the snapshot's dataclasses, which are the one place
defaults live in.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AliasChoices,
    AliasGenerator,
    ConfigDict,
    Field,
    StrictInt,
    field_validator,
    model_validator,
)

from proxy.resources.fields import Flag, Percent, Seconds, SomeSeconds, Spec, TargetRef, Unsupported
from proxy.retry import RETRY_CONDITIONS


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _either(name: str) -> AliasChoices:
    return AliasChoices(_camel(name), name)


class _EitherCase(Spec):
    """Fields may be written as Envoy does (snake_case) or as Kubernetes does (camelCase), but not both ways at once."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=_either, serialization_alias=_camel)
    )

    @model_validator(mode="before")
    @classmethod
    def _written_once(cls, value: object) -> object:
        if isinstance(value, dict):
            for name in cls.model_fields:
                if name != _camel(name) and name in value and _camel(name) in value:
                    raise ValueError(f"{name} and {_camel(name)} are the same field")
        return value


class LocalityLbSetting(_EitherCase):
    enabled: Flag
    distribute: Unsupported = None
    failover: Unsupported = None
    failover_priority: Unsupported = None


class LoadBalancer(_EitherCase):
    policy: Literal["p2c_ewma", "least_request", "round_robin", "random"] = "p2c_ewma"
    panic_threshold: Percent | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    consistent_hash: Unsupported = None
    warmup: Unsupported = None

    @field_validator("policy", mode="before")
    @classmethod
    def _envoy_case(cls, value: object) -> object:
        """Envoy writes LEAST_REQUEST."""
        if not isinstance(value, str):
            return value
        if value.lower() in {"ring_hash", "maglev"}:
            raise ValueError(f"{value} is not supported yet")
        return value.lower()


class TrafficTimeouts(_EitherCase):
    """`request` 0 means none."""

    request: Seconds | None = None
    connect: SomeSeconds | None = None
    idle: Unsupported = None


class BackOff(_EitherCase):
    base_interval: SomeSeconds | None = None
    max_interval: SomeSeconds | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.base_interval and self.max_interval and self.max_interval < self.base_interval:
            raise ValueError("max_interval: must not be shorter than base_interval")
        return self


class RetryBudgetSpec(_EitherCase):
    budget_percent: Percent | None = None
    min_retry_concurrency: Annotated[StrictInt, Field(ge=0, le=10_000)] | None = None


class Retries(_EitherCase):
    """`attempts` counts those after the first; 0 switches retries off."""

    attempts: Annotated[StrictInt, Field(ge=0, le=10)] | None = None
    retry_on: Annotated[tuple[str, ...], Field(min_length=1, max_length=len(RETRY_CONDITIONS))] | None = None
    per_try_timeout: SomeSeconds | None = None
    retry_back_off: BackOff | None = None
    retry_budget: RetryBudgetSpec | None = None
    retriable_status_codes: Unsupported = None

    @field_validator("retry_on")
    @classmethod
    def _known(cls, conditions: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for each in conditions or ():
            if each not in RETRY_CONDITIONS:
                raise ValueError(
                    f"unknown condition {each!r:.40}, must be one of {', '.join(RETRY_CONDITIONS)}"
                )
        return conditions


class CircuitBreakerSpec(_EitherCase):
    max_connections: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = None
    max_pending_requests: Annotated[StrictInt, Field(ge=0, le=1_000_000)] | None = None
    max_requests: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = None
    max_retries: Unsupported = None  # the retry budget bounds retries
    max_connection_pools: Unsupported = None


class OutlierDetectionSpec(_EitherCase):
    enabled: Flag | None = None
    consecutive_5xx: Annotated[StrictInt, Field(ge=1, le=1_000_000)] | None = None
    interval: SomeSeconds | None = None
    base_ejection_time: SomeSeconds | None = None
    max_ejection_time: SomeSeconds | None = None
    max_ejection_percent: Percent | None = None
    consecutive_gateway_failure: Unsupported = None
    enforcing_consecutive_5xx: Unsupported = None
    enforcing_success_rate: Unsupported = None
    success_rate_minimum_hosts: Unsupported = None
    success_rate_request_volume: Unsupported = None
    success_rate_stdev_factor: Unsupported = None
    failure_percentage_threshold: Unsupported = None
    enforcing_failure_percentage: Unsupported = None
    split_external_local_origin_errors: Unsupported = None
    consecutive_local_origin_failure: Unsupported = None


class TrafficPolicySpec(_EitherCase):
    """How callers treat the services it targets, all in its own namespace."""

    target_refs: Annotated[tuple[TargetRef, ...], Field(min_length=1, max_length=16)]
    load_balancer: LoadBalancer | None = None
    timeouts: TrafficTimeouts | None = None
    retries: Retries | None = None
    circuit_breaker: CircuitBreakerSpec | None = None
    outlier_detection: OutlierDetectionSpec | None = None


class MeshConfigSpec(_EitherCase):
    """What holds for the whole mesh. There is one: `gossamer-system/default`."""

    default_action: Literal["ALLOW", "DENY"] | None = None
    access_log: Flag | None = None
