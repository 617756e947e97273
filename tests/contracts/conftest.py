"""What the contract that every data plane keeps is tested with: a mesh of two hosts, started once, and applications."""

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from .application import App
from .certificates import MeshRoot
from .greeter import Greeter
from .twohosts import PLANES, Mesh


@pytest.fixture(scope="session")
def root() -> MeshRoot:
    return MeshRoot()


@pytest.fixture(params=PLANES)
def make_plane(request: pytest.FixtureRequest) -> Any:
    return PLANES[request.param]


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=PLANES)
async def shared_mesh(request: pytest.FixtureRequest, root: MeshRoot) -> AsyncIterator[Mesh]:
    """Started once: a worker takes longer to start than most tests take."""
    with tempfile.TemporaryDirectory() as folder:
        logs = {host: Path(folder) / host for host in ("a", "b")}
        descriptors = {
            host: os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND) for host, path in logs.items()
        }
        planes = {host: PLANES[request.param](stdout=descriptor) for host, descriptor in descriptors.items()}
        mesh = Mesh(root, planes, logs)
        try:
            for plane in planes.values():
                await plane.start()
            yield mesh
        finally:
            for plane in planes.values():
                await plane.stop()
            for descriptor in descriptors.values():
                os.close(descriptor)
            mesh.close()


@pytest_asyncio.fixture(loop_scope="session")
async def mesh(shared_mesh: Mesh) -> AsyncIterator[Mesh]:
    """The shared mesh, with nothing served, so that nothing of an earlier test is remembered. No worker may die."""
    await shared_mesh.serve()
    for plane in shared_mesh.planes.values():
        plane.observations()
    pids = {host: plane.processes() for host, plane in shared_mesh.planes.items()}
    yield shared_mesh
    assert {host: plane.processes() for host, plane in shared_mesh.planes.items()} == pids, "a worker died"


@pytest_asyncio.fixture(loop_scope="session")
async def app() -> AsyncIterator[App]:
    application = await App("app").start()
    yield application
    await application.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def other() -> AsyncIterator[App]:
    application = await App("other").start()
    yield application
    await application.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def greeter() -> AsyncIterator[Greeter]:
    made = await Greeter().start()
    yield made
    await made.server.stop(None)
