"""Where the mesh can be entered: the seeds somebody configured, and the members of the last run.

The addresses of some live members are kept in a file beside the database, so that a peer finds its mesh again without
any seed, also when its database is lost. That the file is there says that this peer has met others.

Invariant: what is kept is only ever tried; identities are proved in the handshake whatever the address.
"""

import asyncio
import json
import logging
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from gossip.events import Address
from gossip.member import Member
from peer.io.statefile import StateFile, StateFileError

log = logging.getLogger("gossamer.peer")

CONTACTS_MAX: Final = 16
FILE_NAME: Final = "contacts.json"


@dataclass(frozen=True, slots=True)
class Contacts:
    """The contacts of one data directory."""

    file: StateFile

    @classmethod
    def of(cls, data_dir: Path) -> "Contacts":
        return cls(StateFile(data_dir / FILE_NAME))

    @property
    def met(self) -> bool:
        """Whether this peer has ever known of another one."""
        return self.file.path.exists()

    def load(self) -> tuple[Address, ...]:
        """The members kept by the last run; none, with a word in the log, if the file does not say."""
        try:
            rows = self.file.read_json() or []
            if not isinstance(rows, list):
                raise ValueError("not a list of addresses")
            return tuple(_address(row) for row in rows[:CONTACTS_MAX])
        except (StateFileError, ValueError) as error:
            log.warning("contacts_unread", extra={"fields": {"reason": str(error)}})
            return ()

    def keep(self, addresses: Iterable[Address]) -> None:
        """Keep these addresses, and no others, for the next run. Raises StateFileError."""
        self.file.write(json.dumps([list(address) for address in addresses]))

    def keep_some(self, members: Iterable[Member], rng: random.Random) -> None:
        """Keep some of `members` for the next run, unless there are none. Raises StateFileError."""
        addresses = [member.address for member in members]
        if addresses:
            self.keep(rng.sample(addresses, min(CONTACTS_MAX, len(addresses))))


def _address(row: object) -> Address:
    match row:
        case [str(host), int(port)] if 0 < port < 65536:
            return str(ip_address(host)), port
    raise ValueError(f"not an address: {row!r:.80}")


async def resolve(seeds: Iterable[Address]) -> tuple[tuple[Address, ...], dict[Address, str]]:
    """The IP addresses behind seeds given by name, and the names that resolve to nothing."""
    loop = asyncio.get_running_loop()
    found: dict[Address, None] = {}
    failed: dict[Address, str] = {}
    for host, port in seeds:
        try:
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", "") or error
            failed[host, port] = f"the name does not resolve: {reason}"
            continue
        found.update({(str(answer[4][0]), port): None for answer in answers})
    return tuple(found), failed
