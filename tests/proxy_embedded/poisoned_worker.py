"""A worker with bad luck: run in place of `proxy.embedded.worker`, it suffers from words that stand in a snapshot.

poison-now             ends while the snapshot is read
poison-later           ends soon after it serves it
poison-once:<path>;    ends while it is read, unless the file is there, and makes it
poison-refused         refuses it, without saying whose fault it is
"""

import asyncio
import os
import sys

from proxy.embedded import worker
from proxy.snapshot import Snapshot, SnapshotError, decode_snapshot

LATER_S = 0.05


def decode(data: bytes) -> Snapshot:
    if b"poison-now" in data:
        os._exit(9)
    if b"poison-once:" in data:
        path = data.split(b"poison-once:")[1].split(b";")[0]
        if not os.path.exists(path):
            open(path, "wb").close()
            os._exit(9)
    if b"poison-refused" in data:
        raise SnapshotError("refused, nobody knows why")
    if b"poison-later" in data:
        asyncio.get_running_loop().call_later(LATER_S, os._exit, 9)
    return decode_snapshot(data)


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], decode))
