"""Where the mesh can be entered: the seeds somebody configured, and the members of the last run.

The addresses of some live members are kept in the store, so that a peer finds its mesh again without any seed.

Invariant: what is kept is only ever tried; identities are proved in the handshake whatever the address.
"""

import asyncio
import json
import random
import socket
from collections.abc import Iterable
from typing import Final

from gossip.events import Address
from gossip.member import Member
from peer.io.store import Store

CONTACTS_MAX: Final = 16
_KEY: Final = "contacts"


def load_contacts(store: Store) -> list[Address]:
    """The members kept by the last run. Raises StoreError."""
    text = store.meta_get(_KEY)
    return [(str(host), int(port)) for host, port in json.loads(text)] if text else []


def save_contacts(store: Store, members: Iterable[Member], rng: random.Random) -> None:
    """Keep some of `members` for the next run, unless there are none. Raises StoreError."""
    addresses = [member.address for member in members]
    if addresses:
        keep_contacts(store, rng.sample(addresses, min(CONTACTS_MAX, len(addresses))))


def keep_contacts(store: Store, addresses: Iterable[Address]) -> None:
    """Keep these addresses, and no others, for the next run. Raises StoreError."""
    store.meta_set(_KEY, json.dumps([list(address) for address in addresses]).encode())


async def resolve(seeds: Iterable[Address]) -> tuple[tuple[Address, ...], dict[Address, str]]:
    """The IP addresses behind seeds given by name, and the names that resolve to nothing."""
    loop = asyncio.get_running_loop()
    found: dict[Address, None] = {}
    failed: dict[Address, str] = {}
    for host, port in seeds:
        try:
            answers = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            failed[host, port] = f"the name does not resolve: {error.strerror or error}"
            continue
        found.update({(str(answer[4][0]), port): None for answer in answers})
    return tuple(found), failed
