"""Capability documents: what they may say, and the words for what they may not."""

import re
from typing import Any

import pytest

from proxy.resources import ResourceError, parse_resource
from proxy.resources.capability import CapabilitySpec

ID = "a" * 26


def document(**spec: Any) -> dict[str, Any]:
    given = {"subjects": [{"node": ID}], "namespaces": ["shop"], "kinds": ["HTTPRoute"]} | spec
    return {
        "apiVersion": "gossamer.dev/v1",
        "kind": "Capability",
        "metadata": {"name": "shop"},
        "spec": {name: value for name, value in given.items() if value is not None},
    }


def spec_of(**spec: Any) -> CapabilitySpec:
    parsed = parse_resource(document(**spec)).spec
    assert isinstance(parsed, CapabilitySpec)
    return parsed


def test_one_lives_in_the_root_namespace_and_grants_no_delegation_by_itself() -> None:
    resource = parse_resource(document())
    assert resource.key == "Capability/gossamer-system/shop"
    assert spec_of().delegate is False
    assert spec_of(delegate=True).subjects[0].node == ID
    elsewhere = document()
    elsewhere["metadata"]["namespace"] = "shop"
    with pytest.raises(ResourceError, match=r"must be gossamer-system; spec\.namespaces says"):
        parse_resource(elsewhere)


def test_it_may_name_nobody_everybody_and_everything() -> None:
    assert spec_of(subjects=[]).subjects == ()
    assert spec_of(subjects=[{"node": "*"}], namespaces=["*"], kinds=["*"]).kinds == ("*",)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"subjects": None}, "spec.subjects: is required"),
        ({"subjects": [{}]}, "spec.subjects[0]: must name either a node or an author"),
        ({"subjects": [{"node": "web-1"}]}, "'web-1' is not a node id"),
        ({"subjects": [{"node": ID.upper()}]}, "is not a node id"),
        ({"subjects": [{"node": "a" * 25 + "b"}]}, "is not a node id"),
        (
            {"subjects": [{"node": ID, "author": "0" * 64}]},
            "spec.subjects[0]: must name either a node or an author",
        ),
        ({"subjects": [{"author": "0" * 63}]}, "spec.subjects[0].author: must be an author's key"),
        ({"subjects": [{"author": "A" * 64}]}, "spec.subjects[0].author: must be an author's key"),
        ({"subjects": [{"node": ID}] * 257}, "spec.subjects: must have at most 256 entries"),
        ({"namespaces": []}, "spec.namespaces: must not be empty"),
        ({"namespaces": ["Shop"]}, "spec.namespaces[0]: must be a namespace"),
        ({"namespaces": ["shop-*"]}, "spec.namespaces[0]: must be a namespace"),
        ({"namespaces": [f"n{n}" for n in range(65)]}, "spec.namespaces: must have at most 64 entries"),
        ({"kinds": ["httproute"]}, "spec.kinds[0]: must be written HTTPRoute, not 'httproute'"),
        ({"kinds": ["HttpRoute"]}, "spec.kinds[0]: must be written HTTPRoute"),
        ({"kinds": ["http-route"]}, "spec.kinds[0]: must be a kind of resource"),
        ({"kinds": ["Capability"]}, "spec.kinds[0]: Capability is not granted as a kind"),
        ({"kinds": [f"K{n}" for n in range(17)]}, "spec.kinds: must have at most 16 entries"),
        ({"kinds": None}, "spec.kinds: is required"),
        ({"subjects": [{"node": "*"}], "delegate": True}, 'must be false where a subject is "*"'),
        ({"delegate": "yes"}, "spec.delegate: must be true or false"),
        ({"delegates": True}, "spec.delegates: unknown field (did you mean delegate?)"),
    ],
)
def test_what_is_wrong_is_named(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ResourceError, match=re.escape(words)):
        parse_resource(document(**spec))


def test_a_kind_of_a_later_version_may_be_granted() -> None:
    assert spec_of(kinds=["GRPCRoute", "Later"]).kinds == ("GRPCRoute", "Later")
