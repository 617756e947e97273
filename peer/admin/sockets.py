"""Unix sockets at paths of any length, and the one that nobody listens on any more.

A Unix address holds 107 bytes. A deeper path is reached through a descriptor of its directory
(`/proc/self/fd/<n>/<name>`), which names the same file.

Invariant: a socket file is removed only when connecting to it shows that nobody listens.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "admin.sock"
_ADDRESS_BYTES_MAX: Final = 107


class SocketBusyError(Exception):
    """Somebody listens there. Nothing was changed."""


def connect_unix(path: Path, timeout_s: float) -> socket.socket:
    """A connected socket. Raises OSError (FileNotFoundError, ConnectionRefusedError, PermissionError, ...)."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with _short(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def bind_unix(path: Path) -> socket.socket:
    """A bound socket of mode 0600 that does not listen yet. Raises SocketBusyError or OSError.

    The mode is set before anyone can connect: until `listen` the kernel refuses.
    """
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as address:
            listener.bind(address)
        path.chmod(0o600)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    try:
        # Looked at first: connecting to a regular file is refused just as connecting to a dead socket is.
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketBusyError(f"{path} exists and is not a socket")
        connect_unix(path, timeout_s=1.0).close()
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except OSError as error:
        raise SocketBusyError(f"{path} cannot be tried: {error.strerror or 'no answer'}") from error
    raise SocketBusyError(f"another peer answers at {path}")


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    text = os.fspath(path)
    if len(os.fsencode(text)) <= _ADDRESS_BYTES_MAX:
        yield text
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
