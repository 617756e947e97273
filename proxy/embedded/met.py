"""Certificates met in this worker's handshakes, for the control process, which shows them to whom they are made out to
(`peer/sightings.py`).

Only certificates that passed every check get here, so that their number is that of what the mesh's root has signed. A
handshake costs one hash; a request on a connection that is open costs nothing. Each report takes the first few that
wait, and a certificate that finds no place is not remembered as met: its next handshake brings it again.

Invariant: what is remembered, what waits and what one report holds is bounded; a certificate waits once at most.
"""

import hashlib
import ssl
from collections import OrderedDict
from typing import Final

from trust.tls import PeerObject

REMEMBERED_MAX: Final = 4096  # as many as a trust bundle keeps parsed; 32 bytes each and their place
WAITING_MAX: Final = 256
REPORTED_MAX: Final = 32  # in one report, of which there is one a second: some 20 KiB


class MetCertificates:
    """See the module's docstring. `untold` counts those that found no place since `take` was called."""

    __slots__ = ("_remembered", "_waiting", "untold")

    def __init__(self) -> None:
        self._remembered: OrderedDict[bytes, None] = OrderedDict()  # digests; least recently met first
        self._waiting: list[bytes] = []
        self.untold = 0

    def note(self, connection: ssl.SSLObject) -> None:
        """A handshake is done."""
        if isinstance(connection, PeerObject) and connection.peer is not None:
            self._note(connection.peer_der)

    def _note(self, der: bytes) -> None:
        digest = hashlib.sha256(der).digest()
        if digest in self._remembered:
            self._remembered.move_to_end(digest)
        elif len(self._waiting) >= WAITING_MAX:
            self.untold += 1
        else:
            self._waiting.append(der)
            self._remembered[digest] = None
            if len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)

    def take(self) -> list[bytes]:
        """The next ones to be told (DER), oldest first."""
        taken, self._waiting = self._waiting[:REPORTED_MAX], self._waiting[REPORTED_MAX:]
        return taken
