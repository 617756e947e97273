"""The lives of a node, numbered: each start takes a boot number above all earlier ones, and the database knows of it.

The number goes to the database first and to `keys/boot` then. So a database that knows of fewer lives than the key file
has missed one: it was restored (`peer/io/stale.py`). And where the key file is lost, the database still knows what was
given out.

Invariant: a boot number is durable in both places before it is used.
"""

from pathlib import Path

from peer.io.datadir import DataDirLock
from peer.io.keys import KeyFile, Keys
from peer.io.stale import Boot
from peer.io.store import Store


def open_store(data_dir: Path, keys: Keys, lock: DataDirLock | None = None) -> Store:
    """The database, held against what the keys say of its past. Raises as `Store.open`, and KeyFileError."""
    lived = keys.path(KeyFile.CREDENTIAL).exists()
    return Store.open(data_dir, lock, last=keys.last_boot(), lived=lived)


def begin_life(keys: Keys, store: Store, now_ms: int) -> int:
    """The boot number of this life. Raises KeyFileError, StoreError."""
    boot = keys.next_boot(now_ms, above=store.boot, reserve=lambda number: store.remember_boot(Boot(number)))
    store.remember_boot(Boot(boot, keys.mark(KeyFile.BOOT)))
    return boot


def raise_boot(keys: Keys, store: Store, boot: int) -> None:
    """Keep a higher number for the life under way. Raises KeyFileError, StoreError."""
    store.remember_boot(Boot(boot))
    keys.write(KeyFile.BOOT, b"%d\n" % boot)
    store.remember_boot(Boot(boot, keys.mark(KeyFile.BOOT)))
