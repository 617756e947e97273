"""Services of this host: whole changes or none, whatever fails on the way."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from peer.api import ApiError
from peer.local import COMMAND, LocalServices
from peer.messages import Draft
from peer.records import decode_service
from proxy.resources import ResourceError, parse_service_documents


def document(name: str = "shop", **fields: Any) -> dict[str, Any]:
    return {"service": {"name": name, "address": "127.0.0.1", "port": 8080} | fields}


class Host:
    """Everything local services hang on, each part of which can refuse."""

    def __init__(self, credential: Any) -> None:
        self.told: dict[str, bytes] = {}
        self.written: list[Draft] = []
        self.remembered = ""
        self.remembers = 0
        self.changes = 0
        self.refuses: dict[str, str] = {}
        self.prepared: list[set[Any]] = []
        self.local = LocalServices(
            credential=lambda: credential,
            write=self._write,
            remember=self._remember,
            prepare=self._prepare,
            changed=self._changed,
        )

    def _refuse(self, part: str) -> None:
        if part in self.refuses:
            raise ApiError(self.refuses[part])

    async def _write(self, drafts: Sequence[Draft]) -> None:
        self._refuse("write")
        self.written += drafts
        for draft in drafts:
            if draft.payload:
                self.told[draft.key] = draft.payload
            else:
                del self.told[draft.key]

    async def _remember(self, text: str) -> None:
        self._refuse("remember")
        self.remembers += 1
        self.remembered = text
        if "after remember" in self.refuses:
            self.refuses["remember"] = self.refuses["after remember"]

    def _prepare(self, services: Mapping[Any, Any]) -> None:
        self._refuse("prepare")
        self.prepared.append(set(services))

    def _changed(self) -> None:
        self.changes += 1

    def state(self) -> Any:
        names = json.loads(self.remembered) if self.remembered else []
        return (
            set(self.local.services),
            dict(self.told),
            [each["service"]["name"] for each in names],
            dict(self.local.health),
        )


@pytest.fixture
def host(live: Any) -> Host:
    return Host(live.member(1).credential)


async def test_a_registration_is_remembered_told_and_known(host: Host) -> None:
    await host.local.register([document(), document("cart")], "f.yaml")
    assert set(host.told) == {"default/shop", "default/cart"}
    assert [each["service"]["name"] for each in json.loads(host.remembered)] == ["cart", "shop"]
    assert host.local.accounts() == {("default", "shop"), ("default", "cart")}
    again = Host(host.local._credential())
    again.local.restore(host.remembered, host.told)
    assert set(again.local.services) == set(host.local.services)
    await again.local.publish()
    assert again.written == []  # the mesh knows it all


@pytest.mark.parametrize("part", ["prepare", "remember", "write"])
@pytest.mark.parametrize("change", ["add", "replace", "remove", "file"])
async def test_a_change_that_fails_anywhere_changed_nothing(host: Host, part: str, change: str) -> None:
    await host.local.register([document()], "f.yaml")
    host.local.set_health(("default", "shop"), "passing")
    await host.local.publish()
    before = host.state()
    host.refuses[part] = "the disk is full"
    specs = parse_service_documents([document("cart")], "x")
    attempts = {
        "add": lambda: host.local.register([document("cart")], "f.yaml"),
        "replace": lambda: host.local.register([document(port=9090)], "f.yaml"),
        "remove": lambda: host.local.deregister("default", "shop"),
        "file": lambda: host.local.replace_file("/x.yaml", specs),
    }
    if (part, change) == ("remember", "file"):
        return  # a file is its own memory
    with pytest.raises(ApiError, match="full"):
        await attempts[change]()
    assert host.state() == before
    host.refuses.clear()
    await attempts[change]()
    assert host.state() != before


async def test_a_refusal_that_cannot_be_taken_back_on_disk_says_so(host: Host) -> None:
    host.refuses |= {"write": "the store is full", "after remember": "the file cannot be written"}
    with pytest.raises(ApiError, match=r"the store is full; and it comes back .* the file cannot be written"):
        await host.local.register([document()], "f.yaml")
    assert host.local.services == {}


async def test_services_of_files_cost_no_write_of_the_command_lines(host: Host) -> None:
    specs = parse_service_documents([document()], "x")
    await host.local.replace_file("/x.yaml", specs)
    assert host.remembers == 0
    await host.local.replace_file("/x.yaml", ())
    assert host.local.services == {}
    assert host.told == {}


async def test_nobody_takes_a_service_from_where_it_was_registered(host: Host) -> None:
    specs = parse_service_documents([document()], "x")
    await host.local.replace_file("/a.yaml", specs)
    with pytest.raises(ApiError, match=r"already registered by /a\.yaml"):
        await host.local.register([document()], "f.yaml")
    with pytest.raises(ApiError, match=r"already registered by /a\.yaml"):
        await host.local.replace_file("/b.yaml", specs)
    with pytest.raises(ApiError, match=r"comes from /a\.yaml: change that file"):
        await host.local.deregister("default", "shop")
    with pytest.raises(ApiError, match="is not registered"):
        await host.local.deregister("default", "cart")
    assert {registered.source for registered in host.local.services.values()} == {"/a.yaml"}


async def test_two_services_cannot_have_one_upstream_port(host: Host) -> None:
    upstream = {"upstreams": [{"service": "cart", "local_port": 9190}]}
    await host.local.register([document(**upstream)], "f.yaml")
    with pytest.raises(ApiError, match="local port 9190 is an upstream of service shop and of bank"):
        await host.local.register([document("bank", **upstream)], "f.yaml")
    await host.local.register([document(**upstream)], "f.yaml")  # itself again is no clash


async def test_a_name_the_credential_does_not_allow_is_refused(live: Any) -> None:
    host = Host(live.member(1, services=("default/shop",)).credential)
    with pytest.raises(ApiError, match="may not be default/bank: its credential allows default/shop"):
        await host.local.register([document("bank")], "f.yaml")
    with pytest.raises(ApiError, match="may not be default/bank"):
        await host.local.register([document("shop", account="bank")], "f.yaml")
    assert host.told == {}


async def test_a_verdict_outlives_a_registration_of_the_same_and_not_of_another(host: Host) -> None:
    checked = {"check": {"tcp": True}}
    await host.local.register([document(**checked)], "f.yaml")
    host.local.set_health(("default", "shop"), "failing")
    await host.local.publish()
    assert decode_service(host.told["default/shop"]).health == "failing"
    await host.local.register([document(**checked)], "f.yaml")  # its check goes on and will not say it again
    assert decode_service(host.told["default/shop"]).health == "failing"
    await host.local.register([document(port=9090, **checked)], "f.yaml")
    assert decode_service(host.told["default/shop"]).health == "unknown"


async def test_a_verdict_on_a_service_that_is_gone_is_dropped(host: Host) -> None:
    await host.local.register([document()], "f.yaml")
    await host.local.deregister("default", "shop")
    host.local.set_health(("default", "shop"), "failing")
    assert host.local.health == {}


async def test_what_the_mesh_believes_and_is_not_so_is_withdrawn(host: Host) -> None:
    await host.local.register([document(), document("old")], "f.yaml")
    stale = dict(host.told)
    again = Host(host.local._credential())
    again.told = dict(stale)
    again.local.restore(json.dumps([document()]), {})
    again.local.mesh_knows(stale)
    await again.local.publish()
    assert set(again.told) == {"default/shop"}


@pytest.mark.parametrize("text", ["{", "7", '{"a": 1}', "[7]", '[{"service": {}}]', "\0"])
def test_a_damaged_memory_is_refused_with_words(host: Host, text: str) -> None:
    with pytest.raises(ResourceError):
        host.local.restore(text, {})
    assert host.local.services == {}


async def test_bad_documents_are_wrong_use(host: Host) -> None:
    for documents in ([], [document(), document()], [{"service": {"name": "x", "prot": 1}}], [{}]):
        with pytest.raises(ApiError) as refusal:
            await host.local.register(documents, "f.yaml")
        assert refusal.value.code == 2
    assert COMMAND == "command line"
    assert host.changes == 0
