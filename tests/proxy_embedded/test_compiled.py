"""Decisions that are remembered are those that would be made again."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.authorize import RequestFacts, compile_authorization
from proxy.embedded.compiled import _CALLERS_CACHED_MAX, _DECISIONS_CACHED_MAX, _FACTS_BYTES_MAX, Inbound
from proxy.embedded.telemetry import Recorder
from proxy.snapshot import (
    Authorization,
    AuthzPolicy,
    AuthzRule,
    Condition,
    InboundService,
    Operation,
    Source,
)

WEB, BOT = "spiffe://unit.mesh/ns/default/sa/web", "spiffe://unit.mesh/ns/default/sa/bot"


@dataclass
class FakeRequest:
    method: str = "GET"
    upgrade: bytes = b""
    expects: bool = False
    body: int = 0


@dataclass
class FakeExchange:
    host: bytes = b"cart"
    path_sent: str = "/"
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    request: FakeRequest = field(default_factory=FakeRequest)
    traceparent: bytes = b"t"
    request_id: bytes = b"i"


def policy(name: str, *, sources: Any = (), operations: Any = (), conditions: Any = ()) -> AuthzPolicy:
    rule = AuthzRule(sources=sources, operations=operations, conditions=conditions)
    return AuthzPolicy(name=f"default/{name}", variants=((rule,),))


def inbound(authorization: Authorization) -> Inbound:
    return Inbound(
        InboundService(
            sni="cart.default.mesh", service="cart", namespace="default", port=80, protocol="http",
            identity="spiffe://unit.mesh/ns/default/sa/cart", app_host="127.0.0.1", app_port=1,
            authorization=authorization,
        )
    )  # fmt: skip


EVERYTHING = Authorization(
    deny=(
        policy("ip", sources=(Source(ip_blocks=("10.0.0.2",)),), operations=(Operation(paths=("/a*",)),)),
        policy("host", operations=(Operation(hosts=("other",), methods=("POST",)),)),
    ),
    allow=(policy("web", sources=(Source(principals=(WEB.removeprefix("spiffe://"),)),)),),
)
ASKED = st.tuples(
    st.sampled_from([WEB, BOT]), st.sampled_from(["10.0.0.1", "10.0.0.2"]), st.sampled_from([b"cart", b"other"]),
    st.sampled_from(["GET", "POST"]), st.sampled_from(["/", "/a", "/b"]),
)  # fmt: skip


@given(st.lists(ASKED, min_size=1, max_size=60))
def test_every_fact_a_decision_depends_on_is_part_of_what_is_remembered(asked: list[Any]) -> None:
    service = inbound(EVERYTHING)
    fresh = compile_authorization(EVERYTHING)
    for principal, ip, host, method, path in asked:
        exchange: Any = FakeExchange(host, path, request=FakeRequest(method))
        facts = RequestFacts(
            principal=principal, ip=ip, port=80, sni="cart.default.mesh", host=host.decode(), method=method, path=path
        )  # fmt: skip
        assert service.authorize(exchange, principal, ip) == fresh.decide(facts)


@pytest.mark.parametrize("dry_run", [False, True])
def test_where_a_policy_reads_headers_each_request_is_judged_by_its_own(dry_run: bool) -> None:
    rule = AuthzRule(conditions=(Condition(key="request.headers[x-role]", values=("admin",)),))
    reading = AuthzPolicy(name="default/role", variants=((rule,),), dry_run=dry_run)
    service = inbound(Authorization(allow=(reading, policy("nobody", sources=(Source(principals=("x",)),)))))
    told = []
    for role in (b"admin", b"guest", b"admin"):
        exchange: Any = FakeExchange(headers=[(b"x-role", role)])
        told.append(service.authorize(exchange, WEB, "10.0.0.1").would_allow)
    assert told == [True, False, True]


def test_what_is_remembered_is_bounded() -> None:
    service = inbound(EVERYTHING)
    sizes = set()
    for number in range(3 * _DECISIONS_CACHED_MAX):
        exchange: Any = FakeExchange(path_sent=f"/{number}")
        assert service.authorize(exchange, WEB, "10.0.0.1").allowed
        sizes.add(len(service._decided))
    assert max(sizes) == _DECISIONS_CACHED_MAX
    service._decided.clear()
    long: Any = FakeExchange(path_sent="/" + "x" * _FACTS_BYTES_MAX)
    assert service.authorize(long, WEB, "10.0.0.1").allowed
    assert service._decided == {}


def test_callers_beyond_the_bound_are_counted_without_being_remembered() -> None:
    service, recorder = inbound(Authorization()), Recorder()
    for number in range(_CALLERS_CACHED_MAX + 1):
        service.edge_from(recorder, f"{WEB}{number}").count(200, "-", 1.0, 0, 0)
    assert len(service._callers) == _CALLERS_CACHED_MAX
    assert service.edge_from(recorder, f"{WEB}0") is service.edge_from(recorder, f"{WEB}0")
    series, _ = recorder.take()
    assert len({labels.source_principal for labels, _ in series}) == _CALLERS_CACHED_MAX + 1
