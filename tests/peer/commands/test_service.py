"""`service register`, `deregister` and `list`."""

from tests.peer.fakepeer import NODE, SERVICE


def test_service_register_and_deregister(gossamer, served, tmp_path):
    path = tmp_path / "cart.yaml"
    path.write_text(SERVICE)
    assert gossamer("service", "register", "-f", str(path)).out == "service default/cart registered\n"
    assert gossamer("service", "deregister", "cart").out == "service default/cart deregistered\n"
    assert gossamer("service", "deregister", "shop/cart").code == 0
    assert gossamer("service", "deregister", "cart", "-n", "shop").code == 0
    assert served.api.calls == [
        ("register", ([{"service": {"name": "cart", "port": 8080}}], str(path))),
        ("deregister", ("default", "cart")),
        ("deregister", ("shop", "cart")),
        ("deregister", ("shop", "cart")),
    ]


def test_service_list_of_one_namespace(gossamer, served):
    served.api.answers["services"] = [
        {"name": "a", "namespace": "x", "node": NODE, "address": "127.0.0.1", "labels": {"v": "1"},
         "health": "passing", "ports": [{"name": "", "port": 80, "target": 8080, "protocol": "http"},
                                          {"name": "db", "port": 5432, "target": 5432, "protocol": "tcp"}]},
        {"name": "b", "namespace": "y", "node": NODE, "address": "127.0.0.1", "ports": [80], "health": "failing"},
    ]  # fmt: skip
    assert [row["name"] for row in gossamer("service", "list", "-n", "y", "-o", "json").data] == ["b"]
    assert gossamer("service", "list").out.splitlines()[1].split() == [
        "x",
        "a",
        NODE,
        "127.0.0.1",
        "80/http,db:5432/tcp",
        "passing",
        "v=1",
    ]
