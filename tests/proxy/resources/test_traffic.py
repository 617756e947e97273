"""TrafficPolicy and MeshConfig: Envoy's names in either spelling."""

from typing import Any

import pytest

from proxy.resources import ResourceError, parse_resource
from proxy.resources.traffic import TrafficPolicySpec


def parse(**spec: Any) -> TrafficPolicySpec:
    resource = parse_resource(
        {
            "apiVersion": "gossamer.dev/v1",
            "kind": "TrafficPolicy",
            "metadata": {"name": "t"},
            "spec": {"targetRefs": [{"kind": "Service", "name": "cart"}]} | spec,
        }
    )
    assert isinstance(resource.spec, TrafficPolicySpec)
    return resource.spec


def problem(**spec: Any) -> str:
    with pytest.raises(ResourceError) as caught:
        parse(**spec)
    return str(caught.value).replace("TrafficPolicy default/t: ", "")


def test_names_may_be_written_as_envoy_or_as_kubernetes_does() -> None:
    snake = parse(
        outlierDetection={"consecutive_5xx": 3, "base_ejection_time": "1m", "max_ejection_percent": 50}
    )
    camel = parse(outlier_detection={"consecutive5xx": 3, "baseEjectionTime": "1m", "maxEjectionPercent": 50})
    assert snake == camel
    assert parse(loadBalancer={"policy": "LEAST_REQUEST"}) == parse(load_balancer={"policy": "least_request"})


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"targetRefs": []}, "spec.targetRefs: must not be empty"),
        ({"loadBalancer": {"policy": "MAGLEV"}}, "spec.loadBalancer.policy: MAGLEV is not supported yet"),
        (
            {"loadBalancer": {"policy": "x"}},
            "policy: must be one of p2c_ewma, least_request, round_robin, random, not 'x'",
        ),
        ({"loadBalancer": {"panicThreshold": 101}}, "panicThreshold: must be <= 100"),
        ({"loadBalancer": {"consistentHash": {}}}, "spec.loadBalancer.consistentHash: is not supported yet"),
        ({"timeouts": {"connect": "0s"}}, "spec.timeouts.connect: must be > 0"),
        ({"timeouts": {"idle": "5s"}}, "spec.timeouts.idle: is not supported yet"),
        ({"retries": {"attempts": 11}}, "spec.retries.attempts: must be <= 10"),
        (
            {"retries": {"retryOn": ["retriable-4xx"]}},
            "unknown condition 'retriable-4xx', must be one of connect-failure",
        ),
        (
            {"retries": {"retry_back_off": {"base_interval": "2s", "max_interval": "1s"}}},
            "max_interval: must not be shorter",
        ),
        ({"circuitBreaker": {"max_retries": 3}}, "spec.circuitBreaker.max_retries: is not supported yet"),
        ({"circuitBreaker": {"maxConnections": 0}}, "spec.circuitBreaker.maxConnections: must be >= 1"),
        ({"outlierDetection": {"consecutive_5xx": 0}}, "spec.outlierDetection.consecutive_5xx: must be >= 1"),
        (
            {"outlierDetection": {"success_rate_stdev_factor": 1900}},
            "success_rate_stdev_factor: is not supported yet",
        ),
        (
            {"outlierDetection": {"max_ejection_time": "1s", "maxEjectionTime": "1s"}},
            "max_ejection_time and maxEjectionTime are the same field",
        ),
        ({"outlierDetecton": {}}, "spec.outlierDetecton: unknown field (did you mean outlierDetection?)"),
        ({"rateLimit": {}}, "spec.rateLimit: unknown field"),
    ],
)
def test_faults(spec: Any, expected: str) -> None:
    assert expected in problem(**spec)
