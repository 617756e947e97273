"""`peer` and `demo`: the commands that run things rather than ask for them."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from peer.commands.options import CallsPeer, Failure, client_of, data_dir_option, output_option
from peer.render import print_data, print_notes

if TYPE_CHECKING:
    from peer.config import Config

UPGRADE_S_MAX: Final = 60.0  # what a new process may take to enter the mesh, once it has taken over


@click.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="YAML file.")
@click.option("--data-dir", metavar="DIR", help="State and keys of this peer (default ./gossamer-data).")
@click.option("--name", help="Label of this peer (default: the host's name).")
@click.option("--bind", metavar="IP", help="Address to listen on (default 0.0.0.0).")
@click.option("--advertise", metavar="IP", help="Address other peers reach this one at (default: --bind).")
@click.option("--seed", "seeds", multiple=True, metavar="HOST:PORT", help="A peer to contact; repeatable.")
@click.option(
    "--token", metavar="TOKEN", help="Join or bootstrap token. Others can see it in ps: prefer --token-file."
)
@click.option("--token-file", metavar="FILE", help="File that holds the join or bootstrap token.")
@click.option("--bootstrap", is_flag=True, default=None, help="Make a new mesh, unless this peer is in one.")
@click.option("--bootstrap-expect", metavar="N", help="Make it together with other first peers, N in all.")
@click.option(
    "--accept-state-loss", is_flag=True, default=None,
    help="Go on from what this peer holds, at this start: only once it is certain that no other holds more.",
)  # fmt: skip
@click.option("--zone", help="Failure domain; traffic prefers its own.")
@click.option("--profile", metavar="lan|wan|local", help="Gossip timing (default lan).")
@click.option("--engine", metavar="ENGINE", help="Data plane (default embedded).")
@click.option("--trust-domain", metavar="NAME", help="SPIFFE trust domain of a new mesh.")
@click.option(
    "--services-dir", metavar="DIR", help="Service files (default services.d in the data directory)."
)
@click.option("--workers", metavar="N|auto", help="Data-plane processes (default 1).")
@click.option("--access-log", metavar="true|false|FILE", help="Access log (default true: standard output).")
@click.option("--drain-timeout", "drain_timeout_s", metavar="DURATION", help="Default 45s.")
@click.option("--gossip-port", "ports__gossip", metavar="PORT", help="Default 7946.")
@click.option("--inbound-port", "ports__inbound", metavar="PORT", help="Default 15006.")
@click.option("--outbound-port", "ports__outbound", metavar="PORT", help="Default 15001.")
@click.option("--admin-port", "ports__admin", metavar="PORT", help="Default 15020.")
@click.option("--log-level", "log__level", metavar="LEVEL", help="debug, info, warning or error.")
@click.option("--log-format", "log__format", metavar="text|json", help="Of the log on standard error.")
def peer(config_file: Path | None, **flags: Any) -> int:
    """Run this host's peer, in the foreground.

    Every option is also a key of the YAML file (--config) and an environment variable (GOSSAMER_NAME,
    GOSSAMER_PORTS_GOSSIP, ...). A flag wins over the environment, which wins over the file.

    SIGTERM and Ctrl-C drain the traffic and leave the mesh; SIGUSR2 upgrades in place (see gossamer upgrade).
    """
    config = configuration(config_file, os.environ, flags)
    print_notes([f"warning: {warning}" for warning in config.warnings])

    from peer.run import main

    return main(config)


def configuration(
    config_file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]
) -> "Config":
    """What a peer is told by its file, its environment and the options of `peer`. Raises Failure."""
    from peer.config import ConfigError, load_config

    try:
        overrides = {name.replace("__", "."): value for name, value in flags.items()}
        return load_config(config_file, environment, overrides)
    except ConfigError as error:
        raise Failure(str(error), code=2) from error


@click.command()
@data_dir_option
@output_option
def upgrade(data_dir: Path, output: str) -> None:
    """Put a new process in the place of this peer's, without refusing a connection.

    It is started with the same command line: from the release that is installed now, with the configuration as it is
    now. Returns when it is ready. If it does not start, the running one goes on. SIGUSR2 does the same.
    """
    with CallsPeer():
        result = client_of(data_dir).upgrade()
    pid = int(result["pid"])
    if not _taken_over(data_dir, pid):
        raise Failure(f"process {pid} has taken over, but is not ready after {UPGRADE_S_MAX:g} s")
    if output != "table":
        print_data(result, output, [])
    else:
        print_notes([f"upgraded; the peer is process {pid}"])


def _taken_over(data_dir: Path, pid: int) -> bool:
    from peer.admin.client import ClientError
    from peer.io.datadir import holder, wait_ended

    deadline = time.monotonic() + UPGRADE_S_MAX
    while time.monotonic() < deadline:
        try:
            if holder(data_dir) == pid and client_of(data_dir).health().get("ready"):
                return True
        except ClientError:
            pass  # it does not answer yet
        if wait_ended(pid, timeout_s=0.05):
            raise Failure(f"process {pid} was about to take over and has ended: see the peer's log")
    return False


@click.command()
@click.option("--keep", is_flag=True, help="Leave the mesh running at the end and print how to use it.")
def demo(keep: bool) -> int:
    """Run a whole mesh on this machine and tell its story."""
    from peer.demo import main

    return main(keep=keep)
