"""`token create` and `ca status`."""

from tests.peer.fakepeer import NODE


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


def test_ca_status(gossamer):
    ended = gossamer("ca", "status")
    assert "threshold:  1 of 1" in ended.out
    assert "one     alive  " + NODE in ended.out
    assert gossamer("ca", "status", "-o", "json").data["can_issue"] is True
