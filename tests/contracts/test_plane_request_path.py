"""The path of a request: names, routes, endpoints, identity, and what each failure answers."""

import pytest

from proxy.snapshot import (
    Backend,
    CircuitBreaker,
    HeaderEdit,
    HeaderMatch,
    Redirect,
    Rewrite,
    RouteMatch,
    RouteRule,
    StringMatch,
)

from .conftest import App, Mesh, Service, answer, call, connect, spiffe

pytestmark = pytest.mark.asyncio(loop_scope="session")
