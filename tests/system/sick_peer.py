"""`gossamer peer` on a host with bad luck: its workers are those of tests/proxy_embedded/poisoned_worker.py, and what
it serves is proven after 3 s. Takes the same options."""

import os
import sys
from pathlib import Path
from typing import Final

from peer.commands.daemon import configuration, peer
from peer.run import main

WORKER: Final = Path(__file__).parents[1] / "proxy_embedded" / "poisoned_worker.py"
PROVEN_AFTER_S: Final = 3.0

if __name__ == "__main__":
    flags = peer.make_context("sick-peer", sys.argv[1:]).params
    config = configuration(flags.pop("config_file"), os.environ, flags)
    sys.exit(main(config, program=("-P", str(WORKER)), proven_after_s=PROVEN_AFTER_S))
