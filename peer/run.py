"""`gossamer peer`: from a configuration to a running process and back.

Exit codes: 0 the peer left as it was asked to, 1 it could not start or a part of it failed, 130 somebody typed Ctrl-C
before it was a member. Every reason is one line on standard error.

Invariant: the data directory's lock is held from before anything is read until after everything is closed.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeVar

import uvloop

from peer.admin.server import AdminError, AdminServer
from peer.clock import Clock
from peer.config import Config
from peer.contacts import Contacts
from peer.custody import Custody
from peer.daemon import Daemon
from peer.entering import ENTERED
from peer.establish import EstablishError, establish
from peer.io.datadir import DataDirBusy, DataDirError, DataDirLock, inherit_lock, lock_data_dir
from peer.io.held import HeldSockets
from peer.io.keys import KeyFileError, Keys
from peer.io.statefile import StateFileError
from peer.io.store import Store, StoreError
from peer.lifecycle import DaemonError
from peer.lives import begin_life, open_store
from peer.logs import configure, unhandled
from peer.operations import Operations
from peer.ports import PortInUseError, check_ports
from peer.quarantine import PROVEN_AFTER_S
from peer.takeover import Estate, HandoverError, await_estate
from peer.upgrade import Upgrade
from proxy.embedded.plane import EmbeddedPlane
from proxy.embedded.process import WORKER
from trust.identity import format_id

log = logging.getLogger("gossamer.peer")

_T = TypeVar("_T")
_DOUBTED: Final = (
    "own writes wait until a peer has told what it holds; if none holds more: --accept-state-loss"
)
_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_SIGNED: Final = "signed"  # in the database: this host has held the mesh's root key

REFUSALS: Final = (
    AdminError,
    DaemonError,
    DataDirBusy,
    DataDirError,
    EstablishError,
    HandoverError,
    KeyFileError,
    PortInUseError,
    StateFileError,
    StoreError,
)


def main(config: Config, *, program: Sequence[str] = WORKER, proven_after_s: float = PROVEN_AFTER_S) -> int:
    """Run a peer until it is told to leave; the exit code. `program` is what a data-plane worker's interpreter runs;
    what is served is proven when no worker has ended for `proven_after_s`. A process that was started to take over from
    the peer that runs does so."""
    configure(config.log.level, config.log.format)
    try:
        estate = await_estate(os.environ)
        lock = (
            lock_data_dir(config.data_dir) if estate is None else inherit_lock(config.data_dir, estate.lock)
        )
        try:
            return uvloop.run(_run(config, lock, program, proven_after_s, estate))
        finally:
            lock.close()
    except REFUSALS as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return error.code if isinstance(error, EstablishError) else 1


async def _run(
    config: Config, lock: DataDirLock, program: Sequence[str], proven_after_s: float, estate: Estate | None
) -> int:
    asked = asyncio.Event()
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(unhandled)

    def interrupt() -> None:
        interrupted.set()
        asked.set()

    loop.add_signal_handler(signal.SIGTERM, asked.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGUSR2, lambda: log.warning("not_upgraded: this peer is still starting"))
    held = HeldSockets() if estate is None else estate.held()
    check_ports(config, held)
    access_log = _access_log(
        config
    )  # before a mesh is founded, or a token spent, for a peer that cannot start
    clock = Clock()
    keys = Keys.open(config.data_dir)
    store = open_store(config.data_dir, keys, lock)
    if store.set_aside is not None:
        fields = {"file": str(store.set_aside), "damage": store.damage}
        log.error("store_set_aside", extra={"fields": fields})
    elif store.doubt:
        fields = {"file": str(store.path), "reason": store.doubt, "effect": _DOUBTED}
        log.warning("store_doubted", extra={"fields": fields})
    contacts = Contacts.of(config.data_dir)
    try:
        entered = store.meta_get(ENTERED) is not None
        known = contacts.load()
        established = await _unless(
            asked, establish(config, keys, clock.now, known, entered=entered, say=_say)
        )
        if established is None:
            store.close()
            return _INTERRUPTED if interrupted.is_set() else 0
        _note_share(keys, store, established.custody)
        if established.met and not contacts.load():
            contacts.keep(established.met)
        daemon = Daemon(
            config=config,
            established=established,
            keys=keys,
            store=store,
            boot=begin_life(keys, store, int(clock.now() * 1000)),
            plane=EmbeddedPlane(workers=config.workers, stdout=access_log, program=program),
            clock=clock,
            proven_after_s=proven_after_s,
            held=held,
            old_workers=() if estate is None else estate.workers,
        )
    except BaseException:
        store.close()
        raise
    daemon.upgrade = Upgrade(daemon, lock, 0 if estate is None else estate.shell)
    loop.add_signal_handler(signal.SIGUSR2, daemon.upgrade.ask)
    return await _serve(config, daemon, daemon.upgrade, asked)


def _note_share(keys: Keys, store: Store, custody: Custody) -> None:
    """A host that lost its part of the mesh's root key serves on, but there is a signer less: that must be seen."""
    if custody.shares:
        if store.meta_get(_SIGNED) is None:
            store.meta_set(_SIGNED, b"1")
    elif store.meta_get(_SIGNED) is not None and (custody.record is None or custody.lacking):
        fields = {
            "file": f"{keys.directory}/share-*.key",
            "effect": "this host signs nothing",
            "mend": "the other signers restore it; where there are none, put it back from a backup",
        }
        log.error("root_key_lost", extra={"fields": fields})


async def _unless(asked: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """What `work` returns, or None once `asked` is set; the work is then given up."""
    working = asyncio.create_task(work)
    stopped = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in (working, stopped):
            task.cancel()
        await asyncio.gather(working, stopped, return_exceptions=True)


async def _serve(config: Config, daemon: Daemon, upgrade: Upgrade, asked: asyncio.Event) -> int:
    await daemon.start()
    operations = Operations(daemon)
    admin = AdminServer(
        operations, data_dir=config.data_dir, host=config.loopback, port=config.ports.admin, held=daemon.held
    )
    try:
        await admin.start()
        announcing = asyncio.create_task(_announce(daemon))
        events = (asked, daemon.stop_asked, upgrade.found)
        waiting = [asyncio.create_task(event.wait()) for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in (announcing, *waiting):
            task.cancel()
        if not (asked.is_set() or daemon.stop_asked.is_set()):
            await upgrade.hand_over(admin)
        await upgrade.dismiss()
        log.info("leaving", extra={"fields": {"drain_s": config.drain_timeout_s}})
        await daemon.stop(drain_s=0.0 if daemon.failed else None)
    finally:
        await daemon.stop(drain_s=0.0)
        await admin.close()
    if daemon.failed:
        print(f"error: {daemon.failed}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _say(line: str) -> None:
    """A line for the operator, in the log's stream but not in its format."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


async def _announce(daemon: Daemon) -> None:
    """The one line that scripts wait for."""
    await daemon.ready.wait()
    host, port = daemon.config.gossip_address
    name = daemon.certifier.member.credential.name
    print(f"ready {name} {format_id(daemon.identity.id)} {host}:{port}", file=sys.stderr, flush=True)  # noqa: T201


def _access_log(config: Config) -> int | None:
    """Where the workers write the access log: a file's descriptor, or None for standard output."""
    if isinstance(config.access_log, bool):
        return None
    try:
        return os.open(config.access_log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise DaemonError(f"access log {config.access_log} cannot be opened: {error.strerror}") from error
