"""`gossamer edges`: who calls whom, as whom, and what protects it, as this host saw it.

One row per (source, destination, both identities, protection, reporter), with the requests since the peer started. A
node that calls by itself has no service: its source is `unknown` and its identity says which node it is. What was
answered before a destination was chosen has none. As in `stat`, each request is in at most one row of one host.

Invariant: pure; the rows are a function of the totals.
"""

from collections import Counter
from typing import Any

from peer.admin.metrics import spiffe_uri
from peer.admin.stat import told_once
from peer.admin.traffic import Traffic


def edge_rows(traffic: Traffic) -> list[dict[str, Any]]:
    """[{source, destination, source_identity, destination_identity, security, requests, reporter}], by name."""
    requests: Counter[tuple[str, str, str, str, str, str]] = Counter()
    for pair, series, total in told_once(traffic):
        identities = (spiffe_uri(series.source_principal), spiffe_uri(series.destination_principal))
        requests[(*pair, *identities, series.security, series.reporter)] += total.requests
    return [
        {
            "source": source,
            "destination": destination,
            "source_identity": source_identity,
            "destination_identity": destination_identity,
            "security": security,
            "requests": requests[key],
            "reporter": reporter,
        }
        for key in sorted(requests)
        for source, destination, source_identity, destination_identity, security, reporter in (key,)
    ]
