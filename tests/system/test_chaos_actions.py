"""What Chaos Toolkit would do with an exported experiment, done to a mesh of real peers."""

import asyncio
import importlib
import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from chaos import actions, probes
from chaos.experiment import parse
from chaos.plan import resolve
from chaos.processes import NoPeer, peer_of
from chaos.toolkit import export
from peer.demo.mesh import LocalMesh

NETWORK = "127.10.33"
STORY = """
title: One pauses, one is killed, one restarts
topology: {nodes: 3}
method:
  - {at: 0s, for: 2s, fault: pause, pick: {nodes: [n0]}}
  - {at: 1s, for: 3s, fault: kill, pick: {nodes: [n1]}}
  - {at: 5s, fault: restart, graceful: true, pick: {nodes: [n2]}}
steady-state-hypothesis: {within: 40s}
"""
POLICY = """
apiVersion: gossamer.dev/v1
kind: TrafficPolicy
metadata: {name: slow, namespace: default}
spec: {targetRefs: [{kind: Service, name: slow}], timeouts: {request: 5s}}
"""


def perform(activity: Mapping[str, Any], configuration: Mapping[str, Any]) -> Any:
    """As `chaoslib` calls a Python provider: configuration goes to whoever asks for it."""
    provider = activity["provider"]
    function = getattr(importlib.import_module(provider["module"]), provider["func"])
    wanted = (
        {"configuration": configuration} if "configuration" in inspect.signature(function).parameters else {}
    )
    done = function(**provider["arguments"], **wanted)
    actions.wait(activity.get("pauses", {}).get("after", 0))
    return done


async def test_an_exported_experiment_runs_on_peers_of_this_machine(mesh: LocalMesh) -> None:
    directories = {f"n{number}": str(peer.directory) for number, peer in enumerate(mesh.peers)}
    plain = export(resolve(parse(STORY, "story.yaml")), directories)
    checks = plain["steady-state-hypothesis"]["probes"]
    pids = [peer_of(peer.directory) for peer in mesh.peers]
    try:
        await mesh.peers[0].command("apply", "-f", "-", stdin=POLICY)
        held = ("TrafficPolicy", "default", "slow")
        everywhere = list(directories.values())
        assert await asyncio.to_thread(probes.policy_held, everywhere, *held, 20.0)
        assert not probes.policy_held(everywhere, "TrafficPolicy", "default", "other")
        for check in checks:
            assert await asyncio.to_thread(perform, check, plain["configuration"]) is True
        for activity in plain["method"]:
            await asyncio.to_thread(perform, activity, plain["configuration"])
            if activity["name"].startswith("begin kill"):
                assert not probes.views_agree(everywhere[1:])  # n2 sees n0, which is not asked for
        for check in checks:
            assert await asyncio.to_thread(perform, check, plain["configuration"]) is True
        assert await asyncio.to_thread(probes.policy_held, everywhere, *held, 20.0)
        now = [peer_of(peer.directory) for peer in mesh.peers]
        assert [before == after for before, after in zip(pids, now, strict=True)] == [True, False, False]
    finally:
        for peer in mesh.peers[1:]:
            with suppress(NoPeer):
                actions.kill(peer.directory)  # what was started again is not the fixture's child
