"""Where a resource lives whose namespace nobody named."""

from peer.commands.kinds import KINDS, home_of
from proxy.resources import parse_resource
from proxy.resources.resource import KINDS as SCHEMAS


def test_commands_look_where_apply_puts_it() -> None:
    specs = {
        "HTTPRoute": {"parentRefs": [{"kind": "Service", "group": "", "name": "a"}], "rules": [{}]},
        "AuthorizationPolicy": {"rules": [{}]},
        "TrafficPolicy": {"targetRefs": [{"kind": "Service", "name": "a"}], "timeouts": {"request": "1s"}},
        "MeshConfig": {"accessLog": True},
        "Capability": {"subjects": [], "namespaces": ["a"], "kinds": ["*"]},
    }
    for kind in KINDS:
        document = {
            "apiVersion": SCHEMAS[kind][0],
            "kind": kind,
            "metadata": {"name": "default"},
            "spec": specs[kind],
        }
        assert parse_resource(document).namespace == home_of(kind)
