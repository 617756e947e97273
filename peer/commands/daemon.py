"""`peer` and `demo`: the commands that run things rather than ask for them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peer.commands.options import Failure
from peer.render import print_notes

if TYPE_CHECKING:
    from peer.config import Config


@click.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="YAML file.")
@click.option("--data-dir", metavar="DIR", help="State and keys of this peer (default ./gossamer-data).")
@click.option("--name", help="Label of this peer (default: the host's name).")
@click.option("--bind", metavar="IP", help="Address to listen on (default 0.0.0.0).")
@click.option("--advertise", metavar="IP", help="Address other peers reach this one at (default: --bind).")
@click.option("--seed", "seeds", multiple=True, metavar="HOST:PORT", help="A peer to contact; repeatable.")
@click.option("--token", metavar="TOKEN", help="Join token. Others can see it in ps: prefer --token-file.")
@click.option("--token-file", metavar="FILE", help="File that holds the join token.")
@click.option("--bootstrap", is_flag=True, default=None, help="Make a new mesh, unless this peer is in one.")
@click.option("--bootstrap-expect", metavar="N", help="Make it with N first peers (only 1 for now).")
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

    SIGTERM and Ctrl-C drain the traffic and leave the mesh.
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
@click.option("--keep", is_flag=True, help="Leave the mesh running at the end and print how to use it.")
def demo(keep: bool) -> int:
    """Run a whole mesh on this machine and tell its story."""
    from peer.demo import main

    return main(keep=keep)
