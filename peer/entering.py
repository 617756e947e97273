"""From certificate to ready: entering the mesh after a start.

A peer that has been in its mesh before and still has its state goes on alone when nobody answers within
FIRST_SYNC_S_MAX: what remains keeps routing. One that knows that it does not have the state (a newcomer, or a peer
whose database was set aside) serves nothing before another peer has told it: without the mesh's policies it would let
pass what they deny.

Invariant: nothing of this host is announced before the mesh's state was taken in, or waiting for it was given up.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from gossip.events import Address
from peer.api import ApiError
from peer.contacts import resolve
from peer.driver import DriverClosedError
from peer.io.keys import KeyFile, KeyFileError, erase_private
from peer.io.store import StoreError
from peer.memory import FIRST_SYNC_S_MAX
from peer.records import SERVICE

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger("gossamer.peer")

ENTERED: Final = "entered"  # in the database: the mesh's state has been taken in since it was made
RESOLVE_S_MIN: Final = 1.0
RESOLVE_S_MAX: Final = 60.0


async def enter(daemon: "Daemon") -> None:
    """The whole way. Sets `daemon.ready` at its end."""
    while daemon.outlook.node_spiffe not in daemon.certifier.held:
        await daemon.until_changed()
    if not daemon.memory.alone:
        await _first_exchange(daemon)
    if not daemon.memory.entered:
        await _remember_entry(daemon)
    daemon.spawn(_trust_again(daemon), "trusting the database")
    daemon.local.mesh_knows(told(daemon))
    if not daemon.lifecycle.takes_over:
        daemon.lifecycle.serve()
    await daemon.files.read()
    known = {f"{namespace}/{name}" for namespace, name in daemon.local.services}
    withdrawn = sorted(told(daemon).keys() - known)
    if withdrawn:
        # Their files were removed meanwhile, or what was registered here is lost.
        log.warning("services_withdrawn", extra={"fields": {"services": ", ".join(withdrawn)}})
    try:
        await daemon.local.publish()
    except ApiError as error:
        log.error("services_untold", extra={"fields": {"reason": str(error)}})
        daemon.upkeep.untold.set()
    daemon.lifecycle.entered()
    await _certified(daemon)
    daemon.lifecycle.serve()
    daemon.dataplane.changed()
    await daemon.dataplane.wait_enforced(dict(daemon.journal.heads))
    daemon.held.close()
    daemon.ready.set()


def told(daemon: "Daemon") -> dict[str, bytes]:
    """What this node's own records say of its services: key -> payload."""
    mine = (record for record in daemon.journal.records(SERVICE) if record.writer == daemon.identity.id)
    return {record.key: record.payload for record in mine if record.payload}


async def join_seeds(daemon: "Daemon") -> None:
    """Contact the seeds and the members of the last run. A name that does not resolve is tried again until it does."""
    outstanding: list[Address] = [*daemon.seeds, *daemon.contacts]
    wait_s = RESOLVE_S_MIN
    while outstanding:
        addresses, unresolved = await resolve(outstanding)
        try:
            failed = dict((await daemon.join(addresses)).failed) if addresses else {}
        except DriverClosedError:
            return
        _tell(daemon, {**failed, **unresolved})
        outstanding = list(unresolved)
        if outstanding:
            await asyncio.sleep(wait_s)
            wait_s = min(RESOLVE_S_MAX, 2 * wait_s)


async def _first_exchange(daemon: "Daemon") -> None:
    daemon.spawn(join_seeds(daemon), "joining")
    if not daemon.memory.blank:
        try:
            async with asyncio.timeout(FIRST_SYNC_S_MAX):
                await daemon.driver.synced.wait()
        except TimeoutError:
            log.warning("alone", extra={"fields": {"waited_s": FIRST_SYNC_S_MAX}})
        return
    await daemon.driver.synced.wait()


async def _remember_entry(daemon: "Daemon") -> None:
    try:
        await daemon.disk.run(lambda store: store.meta_set(ENTERED, b"1"))
        erase_private(daemon.keys.path(KeyFile.FOUNDER_SINCE))
    except (StoreError, KeyFileError) as error:
        log.warning("entry_unsaved", extra={"fields": {"reason": str(error)}})


async def _trust_again(daemon: "Daemon") -> None:
    """Once another peer has told the state of the mesh, or an operator that nobody can, the database is whole."""
    if not daemon.loss_accepted:
        await daemon.driver.synced.wait()
    try:
        await daemon.disk.run(lambda store: store.trust() if store.doubt else None)
        entered = await daemon.disk.run(lambda store: store.meta_get(ENTERED) is not None)
    except StoreError as error:
        log.warning("doubt_kept", extra={"fields": {"reason": str(error)}})
        return
    if daemon.loss_accepted and entered:
        await asyncio.to_thread(daemon.loss_word.spend, daemon.clock.now())


def _tell(daemon: "Daemon", failed: dict[Address, str]) -> None:
    seeds = set(daemon.seeds)
    for address, reason in failed.items():
        if seeds and address not in seeds:
            continue  # a member of another day; the seeds are what somebody configured
        fields = {"seed": f"{address[0]}:{address[1]}", "reason": reason}
        log.warning("seed_unreachable", extra={"fields": fields})


async def _certified(daemon: "Daemon") -> None:
    """Until each wanted identity has its certificate, or its first attempt has failed."""
    while True:
        wanted = daemon.outlook.wanted_identities()
        if wanted <= {*daemon.certifier.held, *daemon.certifier.failures}:
            return
        await daemon.until_changed()
