"""`author`: keys of people, and documents signed with them."""

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.options import Failure, output_option
from peer.render import print_data, print_lines

if TYPE_CHECKING:
    from proxy.resources import Resource
    from trust.identity import NodeIdentity


@click.group()
def author() -> None:
    """Keys of people who sign what they publish."""


@author.command("create")
@click.argument("file", type=click.Path(path_type=Path))
@output_option
def create(file: Path, output: str) -> None:
    """Make a key and keep it in FILE (mode 0600). Its public half is printed; a Capability names it as a subject."""
    import secrets

    from peer.io.keys import KeyFileError, write_private
    from trust.identity import SEED_BYTES, NodeIdentity

    if file.exists():
        raise Failure(f"{file}: exists; a key is not overwritten", code=2)
    seed = secrets.token_bytes(SEED_BYTES)
    try:
        write_private(file, seed.hex().encode() + b"\n")
    except KeyFileError as error:
        raise Failure(str(error)) from error
    _print(NodeIdentity.from_seed(seed), output)


@author.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@output_option
def show(file: Path, output: str) -> None:
    """Print the public half of the key in FILE."""
    _print(read_key(file), output)


def _print(identity: "NodeIdentity", output: str) -> None:
    key = identity.public_key.hex()
    if output == "table":
        print_lines([key])
    else:
        print_data({"author": key}, output, [])


def read_key(file: Path) -> "NodeIdentity":
    """The author's key. Raises Failure; no word of it contains the key."""
    from peer.yamlfile import open_regular
    from trust.identity import SEED_BYTES, NodeIdentity

    try:
        with open_regular(file) as stream:
            if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                raise Failure(f"{file}: others may read this key: chmod 600 {file}", code=2)
            text = stream.read(4 * SEED_BYTES)
    except OSError as error:
        raise Failure(f"{file}: cannot be read: {error.strerror}", code=2) from error
    try:
        seed = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise Failure(f"{file}: is not an author's key (see: gossamer author create)", code=2)
    return NodeIdentity.from_seed(seed)


def sign_resources(resources: "Sequence[Resource]", file: Path, root: bytes) -> list[dict[str, Any]]:
    """Their documents, signed with the key in `file` for the mesh of that root. Raises Failure."""
    from peer.authored import sign
    from peer.records import PayloadError

    identity = read_key(file)
    stamp_ms = int(time.time() * 1000)
    try:
        return [
            sign(each.document, root=root, key=identity.public_key, stamp_ms=stamp_ms, signer=identity.sign)
            for each in resources
        ]
    except PayloadError as error:
        raise Failure(str(error), code=2) from error
