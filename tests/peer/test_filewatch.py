"""Service files: each whole or not at all, and tried again when what was in the way may have gone."""

import asyncio
import os
from typing import Any

import pytest

from peer.api import ApiError
from peer.filewatch import FileWatch
from peer.local import LocalServices

SERVICE = "service: {{name: {name}, address: 127.0.0.1, port: 8080}}\n"


class Host:
    def __init__(self, credential: Any, directory: Any) -> None:
        self.full = False
        self.writes = 0
        self.local = LocalServices(
            credential=lambda: credential,
            write=self._write,
            remember=self._remember,
            prepare=lambda _services: None,
            changed=lambda: None,
        )
        self.watch = FileWatch(directory, self.local, poll_s=0.001, again_s=0.02)

    async def _write(self, _drafts: Any) -> None:
        if self.full:
            raise ApiError("the disk is full")
        self.writes += 1

    async def _remember(self, _text: str) -> None: ...

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.local.services}


@pytest.fixture
def directory(tmp_path: Any) -> Any:
    made = tmp_path / "services.d"
    made.mkdir(mode=0o755)
    return made


def write(directory: Any, name: str, text: str) -> None:
    path = directory / f"{name}.new"
    path.write_text(text)
    os.utime(path, (1, hash(text) % 1_000_000))  # as if it had been there for long
    path.rename(directory / name)


@pytest.fixture
def host(live: Any, directory: Any) -> Host:
    return Host(live.member(1).credential, directory)


async def test_files_come_change_and_go(host: Host, directory: Any) -> None:
    write(directory, "a.yaml", SERVICE.format(name="shop"))
    await host.watch.read()
    assert host.names == {"shop"}
    write(directory, "a.yaml", SERVICE.format(name="cart") + "---\n" + SERVICE.format(name="bank"))
    await host.watch.read()
    assert host.names == {"cart", "bank"}
    (directory / "a.yaml").unlink()
    await host.watch.read()
    assert host.names == set()
    assert host.watch.problems == []


async def test_a_file_with_a_fault_keeps_what_it_said_before(host: Host, directory: Any) -> None:
    write(directory, "a.yaml", SERVICE.format(name="shop"))
    await host.watch.read()
    write(directory, "a.yaml", SERVICE.format(name="cart") + "---\nservice: {name: x, prot: 1}\n")
    await host.watch.read()
    assert host.names == {"shop"}
    assert "prot" in host.watch.problems[0]


async def test_a_refused_file_is_told_of_and_a_file_that_is_gone_is_not(host: Host, directory: Any) -> None:
    await host.local.register([{"service": {"name": "shop", "port": 1}}], "cli")
    write(directory, "a.yaml", SERVICE.format(name="shop"))
    await host.watch.read()
    assert "already registered by command line" in host.watch.problems[0]
    (directory / "a.yaml").unlink()
    await host.watch.read()
    assert host.watch.problems == []


async def test_what_a_full_disk_refused_is_carried_out_when_there_is_room(
    host: Host, directory: Any, until: Any, caplog: Any
) -> None:
    write(directory, "a.yaml", SERVICE.format(name="shop"))
    write(directory, "b.yaml", SERVICE.format(name="cart"))
    host.full = True
    await host.watch.read()
    assert host.names == set()
    assert len(host.watch.problems) == 2
    running = asyncio.create_task(host.watch.run())
    again = host.watch._files
    await until(lambda: host.watch._files is not again)
    host.full = False
    await until(lambda: host.names == {"shop", "cart"} and not host.watch.problems)
    (directory / "b.yaml").unlink()
    await until(lambda: host.names == {"shop"})
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [record.message for record in caplog.records].count("service_file") == 2  # each was told once


async def test_a_file_removed_while_another_is_being_retried_is_let_go(
    host: Host, directory: Any, until: Any
) -> None:
    write(directory, "a.yaml", SERVICE.format(name="shop"))
    await host.watch.read()
    await host.local.register([{"service": {"name": "cart", "port": 1}}], "cli")
    write(directory, "b.yaml", SERVICE.format(name="cart"))
    await host.watch.read()
    (directory / "a.yaml").unlink()
    await host.watch._read_all_again()
    assert host.names == {"cart"}
    await host.local.deregister("default", "cart")
    running = asyncio.create_task(host.watch.run())
    await until(lambda: host.local.services.get(("default", "cart")) is not None)
    assert host.watch.problems == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_fault_that_appears_while_all_is_read_again_removes_nothing(
    host: Host, directory: Any
) -> None:
    write(directory, "a.yaml", SERVICE.format(name="shop"))
    await host.watch.read()
    write(directory, "a.yaml", "service: [")
    await host.watch._read_all_again()
    assert host.names == {"shop"}
    assert len(host.watch.problems) == 1


async def test_a_directory_that_cannot_be_read_any_more_removes_nothing(host: Host, directory: Any) -> None:
    write(directory, "a.yaml", SERVICE.format(name="shop"))
    await host.watch.read()
    directory.rename(directory.with_name("away"))
    directory.symlink_to(directory)
    await host.watch.read()
    await host.watch._read_all_again()
    assert host.names == {"shop"}
    assert "cannot be read" in host.watch.problems[0]
    directory.unlink()
    directory.with_name("away").rename(directory)
    await host.watch.read()
    assert host.watch.problems == []
