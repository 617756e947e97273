"""The demo, run as a user runs it."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

import pytest

from peer.demo.mesh import command_environment

pytestmark = [pytest.mark.process, pytest.mark.timeout(180)]


async def start(directory: Path, *flags: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "peer.cli", "demo", *flags),
        stdout=PIPE,
        stderr=PIPE,
        env=command_environment() | {"TMPDIR": str(directory)},
    )


def processes_below(directory: Path) -> list[str]:
    """Command lines of running processes that name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended since
            if str(directory) in line:
                found.append(line)
    return found


async def read_until(process: Process, words: str) -> str:
    assert process.stdout is not None
    text = ""
    while words not in text:
        line = await process.stdout.readline()
        assert line, f"the demo ended before it said {words!r}: {text}"
        text += line.decode()
    return text


async def test_the_whole_story_holds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    process = await start(tmp_path)
    out, err = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text + err.decode()
    for words in (
        "3 members alive at each",
        "spiffe://cluster.local/ns/default/sa/web",
        "403",
        "1000 requests",
        "then it was ejected",
        "declared dead",
        "same id, higher boot number",
        "All 7 steps held",
    ):
        assert words in text
    assert list(tmp_path.iterdir()) == []
    assert processes_below(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_demo_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    process = await start(tmp_path)
    await read_until(process, "3 members alive at each")
    process.send_signal(number)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err.decode()
    assert list(tmp_path.iterdir()) == []
    assert processes_below(tmp_path) == []


async def test_keep_leaves_the_mesh_up_until_interrupted(tmp_path: Path) -> None:
    process = await start(tmp_path, "--keep")
    text = await read_until(process, "15020/metrics")
    assert f"export GOSSAMER_DATA_DIR={tmp_path}" in text
    _, writer = await asyncio.open_connection("127.0.0.1", 15001)
    writer.close()
    await writer.wait_closed()
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert processes_below(tmp_path) == []


async def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.2", 15006))
        taken.listen()
        process = await start(tmp_path)
        out, _ = await process.communicate()
    assert process.returncode == 1
    assert "127.0.0.2:15006 is in use" in out.decode()
    assert list(tmp_path.iterdir()) == []
