"""Who calls whom as whom."""

from peer.admin.edges import edge_rows
from peer.admin.traffic import Traffic
from proxy.plane import Series, SeriesDelta, Telemetry

WEB, CART = "spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/shop/sa/cart"
NODE = "spiffe://cluster.local/node/aaaa"


def series(**changes) -> Series:
    values = {
        "reporter": "source", "source_service": "web", "source_namespace": "default", "source_principal": WEB,
        "destination_service": "cart", "destination_namespace": "shop", "destination_principal": CART,
        "protocol": "http", "code": 200, "flags": "-", "security": "mutual_tls",
    } | changes  # fmt: skip
    return Series(**values)


def rows(*seen: Series) -> list[dict[str, object]]:
    traffic = Traffic()
    for each in seen:
        delta = SeriesDelta(requests=1)
        traffic.observe(Telemetry(series={each: delta}, counters={}, ejections=(), connections=0), 1.0)
    return edge_rows(traffic)


def test_an_edge_counts_what_differs_in_its_answer_only():
    assert rows(series(), series(), series(code=503, flags="UH")) == [
        {
            "source": "default/web", "destination": "shop/cart", "source_identity": WEB, "destination_identity": CART,
            "security": "mutual_tls", "requests": 3, "reporter": "source",
        }
    ]  # fmt: skip


def test_another_identity_or_no_protection_is_another_edge():
    found = rows(series(), series(source_service="", source_principal=NODE), series(security="none"))
    assert [(row["source"], row["source_identity"], row["security"]) for row in found] == [
        ("default/web", WEB, "mutual_tls"),
        ("default/web", WEB, "none"),
        ("unknown", NODE, "mutual_tls"),
    ]


def test_an_identity_is_one_however_it_was_written():
    [row] = rows(series(), series(destination_principal=CART.removeprefix("spiffe://")))
    assert (row["destination_identity"], row["requests"]) == (CART, 2)


def test_a_request_that_met_no_destination_has_no_identity_there():
    [row] = rows(
        series(destination_service="", destination_namespace="", destination_principal="", security="none")
    )
    assert (row["destination"], row["destination_identity"]) == ("unknown", "unknown")


def test_a_call_inside_this_host_is_one_edge():
    inside = rows(series(security="none"), series(security="none", reporter="destination"))
    assert [(row["reporter"], row["requests"]) for row in inside] == [("source", 1)]
    outside = rows(series(reporter="destination"))
    assert [row["reporter"] for row in outside] == ["destination"]


def test_there_is_no_edge_before_the_first_request():
    assert rows() == []
