"""`token create`, `ca status`, `ca revoke` and `leave --revoke`."""

import time

import pytest

from peer.commands.trust import _changing, _issuing, _ordered, _rolling
from tests.peer.fakepeer import NODE
from trust.bootstrap import parse_bootstrap


def test_token_create_prints_the_token_alone(gossamer, served):
    ended = gossamer("token", "create")
    assert (ended.code, ended.out, ended.err) == (0, "gsm1.secret\n", "")
    gossamer("token", "create", "--service", "cart", "--service", "shop/*", "--ttl", "2h", "--uses", "5",
             "--no-publish", "--no-invite")  # fmt: skip
    assert served.api.calls == [
        ("token_create", (["*/*"], 3600.0, 1, True, True, False)),
        ("token_create", (["default/cart", "shop/*"], 7200.0, 5, False, False, False)),
    ]
    gossamer("token", "create", "--govern")
    assert served.api.calls[-1] == ("token_create", (["*/*"], 3600.0, 1, True, True, True))
    assert gossamer("token", "create", "-o", "json").data == {"token": "gsm1.secret"}


def test_a_bootstrap_token_is_made_without_a_peer(gossamer, served):
    ended = gossamer("token", "create", "--bootstrap")
    assert ended.code == 0
    assert served.api.calls == []
    assert parse_bootstrap(ended.out).text + "\n" == ended.out
    assert gossamer("token", "create", "--bootstrap").out != ended.out
    parse_bootstrap(gossamer("token", "create", "--bootstrap", "-o", "json").data["token"])


@pytest.mark.parametrize(("words", "lasts_s"), [((), 86_400), (("--ttl", "2h"), 7200)])
def test_a_bootstrap_token_ends(gossamer, served, words, lasts_s):
    before = time.time()
    secret = parse_bootstrap(gossamer("token", "create", "--bootstrap", *words).out)
    assert before - 1 <= secret.expires_at - lasts_s <= time.time()


def test_ca_reshare_tells_the_group_that_came_of_it(gossamer, served):
    ended = gossamer("ca", "reshare", "one", "two", "three", "--timeout", "5s")
    assert (ended.code, ended.out) == (0, "epoch 3: 2 of 3: one, two, three\n")
    assert served.api.calls == [("ca_reshare", (["one", "two", "three"], 5.0))]
    assert gossamer("ca", "reshare", "-o", "json").data["threshold"] == 2
    served.raises("ca_reshare", "the signers have not changed within 1 s; it goes on", 3)
    ended = gossamer("ca", "reshare", "--timeout", "1s")
    assert ended.code == 3
    assert "it goes on" in ended.err


def test_ca_rollover_tells_what_follows_and_who_has_not_heard(gossamer, served):
    ended = gossamer("ca", "rollover", "--overlap", "2h", "--timeout", "5s")
    assert ended.code == 0
    assert ended.out.splitlines()[0] == f"the root {'0b' * 8} follows on {'0a' * 8}"
    assert "both roots count, the old one signs" in ended.out
    assert "not heard of at 1: three" in ended.out
    assert served.api.calls == [("ca_rollover", (7200.0, False, 5.0))]
    assert gossamer("ca", "rollover", "--compromised", "-o", "json").data["compromised"] is True
    assert served.api.calls[-1] == ("ca_rollover", (None, True, 60.0))
    served.raises("ca_rollover", "there is no new root within 1 s; it goes on, waiting for two", 3)
    ended = gossamer("ca", "rollover", "--timeout", "1s")
    assert (ended.code, "it goes on" in ended.err) == (3, True)


def test_the_phases_of_a_rollover_are_told():
    assert _rolling(None) == []
    making = {"phase": "making", "awaited": ["two"], "problem": "not now", "old": "a", "new": ""}
    assert _rolling(making) == [
        "rollover:   the signers make a new root",
        "            not now",
        "            waiting for two",
    ]
    over = {"phase": "overlap", "old": "a", "new": "b", "endsAt": 1, "waitingCount": 0, "waiting": []}
    assert _rolling(over) == [
        "rollover:   both roots count, the new one signs",
        "            a ends in 0 seconds, b follows",
    ]


def test_a_change_of_signers_is_told():
    assert _changing(None) == []
    ceremony = {"epoch": 4, "stage": "dealing", "attempt": 1, "awaited": ["two"], "convicted": []}
    assert _changing(ceremony) == ["changing:   to epoch 4, dealing, attempt 1, waiting for two"]
    assert _changing(ceremony | {"awaited": []}) == ["changing:   to epoch 4, dealing, attempt 1"]


def test_ca_issued(gossamer):
    ended = gossamer("ca", "issued")
    assert "spiffe://m/node/x" in ended.out
    assert "1970-01-01T00:16:40Z" in ended.out
    assert gossamer("ca", "issued", "-o", "json").data[0]["recordedBy"] == "two"


def test_ca_status(gossamer):
    ended = gossamer("ca", "status")
    assert f"root:       {'ab' * 32}, called {'cd' * 8}" in ended.out
    assert "threshold:  1 of 1" in ended.out
    assert "can issue:  yes, but not if one more were gone" in ended.out
    assert "revoked:    2" in ended.out
    assert "one     alive  yes      " + NODE in ended.out
    assert gossamer("ca", "status", "-o", "json").data["can_issue"] is True


@pytest.mark.parametrize(
    ("can", "margin", "words"),
    [
        (True, 2, "yes, and still if 2 more were gone"),
        (True, 0, "yes, but not if one more were gone"),
        (False, -2, "no: 2 more must answer"),
    ],
)
def test_the_margin_is_told_in_words(can, margin, words):
    assert _issuing(can, margin) == words


@pytest.mark.parametrize("kind", ["node", "workload", "certificate", "signer"])
def test_ca_revoke_tells_what_is_believed_no_more(gossamer, served, kind):
    ended = gossamer("ca", "revoke", kind, "one", "--reason", "stolen")
    assert (ended.code, ended.out) == (0, f"{kind}:one is revoked\n")
    assert served.api.calls == [("revoke", (kind, "one", "stolen"))]
    assert gossamer("ca", "revoke", kind, "one", "-o", "json").data["action"] == "revoked"


def test_ca_revoke_shows_why_it_is_refused(gossamer, served):
    served.raises("revoke", "two may not revoke one: only nodes that govern may", 1)
    ended = gossamer("ca", "revoke", "node", "one")
    assert ended.code == 1
    assert "two may not revoke one: only nodes that govern may" in ended.err
    assert gossamer("ca", "revoke", "teapot", "one").code == 2


def test_leave_revoke_gives_the_identity_up(gossamer, served):
    assert gossamer("leave", "--revoke", "--reason", "sold").code == 0
    assert served.api.calls == [("leave", ("sold",))]
    assert gossamer("leave", "--reason", "sold").code == 2


def test_ca_status_tells_orders_and_what_was_refused():
    assert _ordered([{"by": "one", "signers": ["two", "three"]}]) == ["ordered:    two, three, at one"]
    assert _ordered([]) == []
    lines = _changing(
        {"epoch": 3, "stage": "gathering", "attempt": 1, "refused": "two: node x would be left out"}
    )
    assert lines[1:] == ["refused:    what was proposed by two: node x would be left out"]
