"""Which successor of a root this node has named, as a signer of that root.

    keys/rollover-vote   the root, and the one it is followed by as far as this node is asked

Two signatures of t signers each have a signer in common where t is a majority. If that one is honest, they name the
same successor: so each signer keeps what it named, and names no other of that root whatever it is asked and however
often it starts.

Invariant: a name is on disk before a share of the signature leaves.
"""

import asyncio
from typing import Final

from peer.io.keys import KeyFile, Keys
from trust.codec import Reader, pack
from trust.errors import RolloverError
from trust.identity import KEY_BYTES
from trust.rollover import name_of

_VOTE: Final = "gossamer/rollover-vote/1"


class Votes:
    """Which successor this node has named, on disk. Raises KeyFileError, RolloverError: it cannot be read, and then
    this node names none."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._named: tuple[bytes, bytes] | None = None
        data = keys.read(KeyFile.ROLLOVER_VOTE)
        if data is not None:
            reader = Reader(data, count=3, bytes_max=256, what="a vote on a root", error=RolloverError)
            if reader.text(len(_VOTE)) != _VOTE:
                raise RolloverError("this is not a vote on a root of this version")
            self._named = reader.raw(KEY_BYTES), reader.raw(KEY_BYTES)

    async def cast(self, old: bytes, successor: bytes) -> None:
        """Name `successor` of `old`; durable when it returns. Raises RolloverError, KeyFileError: it was not."""
        if self._named is not None and self._named[0] == old and self._named[1] != successor:
            raise RolloverError(
                f"this signer has named {name_of(self._named[1])} as the successor of {name_of(old)}, and no other"
            )
        self._named = old, successor
        await asyncio.to_thread(self._keys.write, KeyFile.ROLLOVER_VOTE, pack([_VOTE, old, successor]))
