"""The kinds of resources as people type them, without importing their schemas (a third of a second).

Invariant: KINDS are those of `proxy.resources` (a test compares them).
"""

import difflib
from typing import Final

from peer.commands.options import Failure, split_name

ALL: Final = "all"
KINDS: Final = ("HTTPRoute", "AuthorizationPolicy", "TrafficPolicy", "MeshConfig", "Capability")
_SHORT: Final = {
    "route": "HTTPRoute",
    "routes": "HTTPRoute",
    "authz": "AuthorizationPolicy",
    "traffic": "TrafficPolicy",
    "mesh": "MeshConfig",
    "cap": "Capability",
    "caps": "Capability",
}
_ELSEWHERE: Final = {
    "service": "gossamer service list",
    "services": "gossamer service list",
    "member": "gossamer members",
    "members": "gossamer members",
    "peers": "gossamer members",
    "tokens": "gossamer token create",
}


def home_of(kind: str) -> str:
    """The namespace of a resource whose namespace is not given: the one that `apply` fills in."""
    return "gossamer-system" if kind in {"MeshConfig", "Capability"} else "default"


def read_key(kind: str, name: str, namespace: str | None) -> tuple[str, str, str]:
    """(kind, namespace, name) of the one resource that people mean. Raises Failure."""
    wanted = read_kind(kind)
    where, name = split_name(name, namespace)
    return wanted, where or home_of(wanted), name


def _spellings() -> dict[str, str]:
    found = dict(_SHORT)
    for kind in KINDS:
        word = kind.lower()
        found |= {word: kind, f"{word}s": kind}
        if word.endswith("y"):
            found[word[:-1] + "ies"] = kind
    return found


_SPELLINGS: Final = _spellings()


def read_kind(text: str, *, several: bool = False) -> str:
    """The kind people mean by `httproute`, `HTTPRoutes`, `authz`, `httproutes.gateway.networking.k8s.io`.

    `several`: "all" is allowed too. Raises Failure with what was probably meant.
    """
    word = text.partition(".")[0].lower()
    if several and word == ALL:
        return ALL
    if word in _SPELLINGS:
        return _SPELLINGS[word]
    if word in _ELSEWHERE:
        raise Failure(f"{text} is not a kind of resource; use: {_ELSEWHERE[word]}", code=2)
    close = difflib.get_close_matches(word, _SPELLINGS, n=1, cutoff=0.6)
    hint = f"did you mean {_SPELLINGS[close[0]]}?" if close else f"there are {', '.join(KINDS)}"
    raise Failure(f"there is no kind {text!r:.60} ({hint})", code=2)
