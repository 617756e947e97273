"""In a peer's PYTHONPATH: its plane runs tests/proxy_embedded/poisoned_worker.py and proves itself quickly."""

from pathlib import Path

import peer.quarantine
import proxy.embedded.supervisor

WORKER = Path(__file__).parents[2] / "proxy_embedded" / "poisoned_worker.py"
proxy.embedded.supervisor.WORKER = ("-P", str(WORKER))  # type: ignore[misc]
peer.quarantine.PROVEN_AFTER_S = 3.0  # type: ignore[misc]
