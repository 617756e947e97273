"""What a peer is told when it starts: one frozen `Config`, parsed once from flags, environment and a YAML file.

Precedence is flag > environment > file > default, key by key. One table (`peer/config_keys.py`) names every key,
how its value is read and what it defaults to; the file's sections, the environment twins (`GOSSAMER_SECTION_KEY`)
and the messages all come from it, so that a key cannot exist in one of them only.

Paths: the data directory is `./gossamer-data` unless `--data-dir` or `GOSSAMER_DATA_DIR` says otherwise. A fixed
place under XDG_STATE_HOME was rejected: several peers share one machine, and a peer whose identity lies where
nobody named it is a peer started twice by accident. A relative path in the file is relative to the file.

Invariant: `load_config` returns a Config in which every value is in range and the coupled ones agree, or raises
ConfigError naming the source (file and line, variable, or flag) and the key. Secrets never appear in a repr.
"""

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from peer.config_keys import (
    ENVIRONMENT_PREFIX,
    KEYS,
    KEYS_BY_NAME,
    SECTIONS,
    TOKEN_CHARS_MAX,
    Address,
    Key,
    did_you_mean,
    read_token,
)
from peer.units import QuantityError
from peer.yamlfile import YamlFileError, read_mapping
from proxy.snapshot import Limits
from trust.bootstrap import BOOTSTRAP_PREFIX, BootstrapSecret, parse_bootstrap
from trust.ceremony.growth import SignerRules
from trust.errors import BootstrapError, CeremonyError

Profile = Literal["lan", "wan", "local"]
Engine = Literal["embedded"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]


# Variables that are not keys of a peer: the command line's own.
_OTHER_VARIABLES: Final = frozenset({"GOSSAMER_CONFIG", "GOSSAMER_DEBUG"})


class ConfigError(Exception):
    """The configuration cannot be used; the message names the source and the key. No peer was started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Listening ports."""

    gossip: int  # UDP and TCP
    inbound: int
    outbound: int
    admin: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Svid:
    """X.509-SVIDs of this host. An hour: revocation may not reach a partition, expiry does."""

    ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ca:
    """The mesh's authority, as this peer would have it. All peers of a mesh should be told the same."""

    rules: SignerRules
    rollover_overlap_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    level: LogLevel
    format: LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A peer's configuration. `token` is a secret and left out of the repr."""

    data_dir: Path
    name: str
    bind: str  # an IP address; 0.0.0.0 or :: for all
    advertise: str  # the IP address other peers reach this one at
    seeds: tuple[Address, ...]
    token: str | None = field(repr=False)
    bootstrap: bool  # make a new mesh when the data directory holds no identity yet
    bootstrap_expect: int  # together with as many others but one; 0: not
    bootstrap_secret: BootstrapSecret | None = field(repr=False)
    accept_state_loss: bool  # an operator's word: what this peer has lost, nobody has
    zone: str
    profile: Profile
    trust_domain: str
    engine: Engine
    workers: int
    services_dir: Path
    access_log: bool | Path  # True: standard output
    drain_timeout_s: float
    clock_drift_max_s: float
    ports: Ports
    limits: Limits
    ca: Ca
    svid: Svid
    log: Log
    warnings: tuple[str, ...] = ()  # what was ignored, in words

    @property
    def loopback(self) -> str:
        """Where loopback-only listeners go: the peer's own address when that is in 127/8, else 127.0.0.1."""
        for text in (self.bind, self.advertise):
            address = ipaddress.ip_address(text)
            if address.version == 4 and address.is_loopback:
                return text
        return "127.0.0.1"

    @property
    def gossip_address(self) -> Address:
        """Where other peers reach this one."""
        return self.advertise, self.ports.gossip


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as somebody wrote it, and where."""

    raw: Any
    where: str  # "peer.yaml:3: ports.gossip", "environment variable GOSSAMER_NAME", "--name"
    base: Path | None = None  # what relative paths in it are relative to


def outgoing_address() -> str | None:
    """The IP address this host speaks from by default, found without sending anything; None when it has no route."""
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue  # no route in this family
    return None


def load_config(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, Any],
    *,
    hostname: Callable[[], str] = socket.gethostname,
    find_address: Callable[[], str | None] = outgoing_address,
) -> Config:
    """The configuration of a peer.

    `path` is the YAML file (None: `GOSSAMER_CONFIG`, or no file). `overrides` are flags by key name
    ("ports.gossip"); None means not given. Raises ConfigError; reads the token file but touches nothing else.
    """
    if path is None and environ.get("GOSSAMER_CONFIG"):
        path = Path(environ["GOSSAMER_CONFIG"])
    given: dict[str, _Given] = {} if path is None else _from_file(path)
    given |= {
        key.name: _Given(environ[key.variable], f"environment variable {key.variable}")
        for key in KEYS
        if environ.get(key.variable)
    }
    for name, raw in overrides.items():
        if name not in KEYS_BY_NAME:
            raise AssertionError(f"no configuration key {name}")
        if raw is not None and raw != ():
            given[name] = _Given(raw, flag_of(name))
    values = {key.name: _value(key, given.get(key.name)) for key in KEYS}
    return _coupled(values, given, hostname, find_address, _unknown_variables(environ))


def flag_of(name: str) -> str:
    """The command-line flag of a key, as messages name it: --seed, --gossip-port, --drain-timeout, --log-level."""
    section, _, key = name.rpartition(".")
    if section == "ports":
        return f"--{key}-port"
    return "--seed" if name == "seeds" else "--" + name.removesuffix("_s").replace(".", "-").replace("_", "-")


def _value(key: Key, given: _Given | None) -> Any:
    if given is None:
        return None if key.default is None else key.read(key.default)
    try:
        value = key.read(given.raw)
    except QuantityError as error:
        raise ConfigError(f"{given.where}: {error}") from error
    if isinstance(value, Path):
        return Path(os.path.abspath(given.base / value if given.base is not None else value))
    return value


def _from_file(path: Path) -> dict[str, _Given]:
    try:
        entries = read_mapping(path, sections=SECTIONS)
    except YamlFileError as error:
        raise ConfigError(str(error)) from error
    given = {}
    for entry in entries:
        if entry.name not in KEYS_BY_NAME:
            section, dot, word = entry.name.rpartition(".")
            if entry.name in SECTIONS:
                raise ConfigError(f"{path}:{entry.line}: {entry.name}: must be a mapping of keys")
            choices = [name.rpartition(".")[2] for name in KEYS_BY_NAME if name.rpartition(".")[0] == section]
            close = did_you_mean(word, choices if dot else [*choices, *SECTIONS])
            raise ConfigError(f"{path}:{entry.line}: {entry.name}: unknown key{close}")
        given[entry.name] = _Given(entry.value, f"{path}:{entry.line}: {entry.name}", path.parent)
    return given


def _unknown_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Variables that look like a mistyped key. Others are left alone: container platforms inject
    `GOSSAMER_SERVICE_HOST` and the like into whoever runs beside a service of that name."""
    known = {key.variable for key in KEYS} | _OTHER_VARIABLES
    warnings = []
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            close = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
            if close:
                warnings.append(f"environment variable {variable} is no key (did you mean {close[0]}?)")
    return tuple(warnings)


# ---------------------------------------------------------------- keys that depend on one another


def _coupled(
    values: Mapping[str, Any],
    given: Mapping[str, _Given],
    hostname: Callable[[], str],
    find_address: Callable[[], str | None],
    warnings: tuple[str, ...],
) -> Config:
    token, secret = _resolve_token(values, given)
    bootstrap, expect = _resolve_bootstrap(values, given, token, secret)
    ports = Ports(**_section(values, "ports"))
    _check_ports(ports, given)
    data_dir = Path(os.path.abspath(values["data_dir"]))
    return Config(
        data_dir=data_dir,
        name=values["name"] or _default_name(hostname()),
        bind=values["bind"],
        advertise=_resolve_advertise(values, given, find_address),
        seeds=values["seeds"],
        token=token,
        bootstrap=bootstrap,
        bootstrap_expect=expect,
        bootstrap_secret=secret,
        accept_state_loss=values["accept_state_loss"],
        zone=values["zone"],
        profile=values["profile"],
        trust_domain=values["trust_domain"],
        engine=values["engine"],
        workers=values["workers"],
        services_dir=values["services_dir"] or data_dir / "services.d",
        access_log=values["access_log"],
        drain_timeout_s=values["drain_timeout_s"],
        clock_drift_max_s=values["clock_drift_max_s"],
        ports=ports,
        limits=Limits(**_section(values, "limits")),
        ca=_resolve_ca(values, given),
        svid=Svid(**_section(values, "svid")),
        log=Log(**_section(values, "log")),
        warnings=warnings,
    )


def _section(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    prefix = section + "."
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _resolve_token(
    values: Mapping[str, Any], given: Mapping[str, _Given]
) -> tuple[str | None, BootstrapSecret | None]:
    """(the join token, the bootstrap secret): a token is one or the other."""
    token: str | None = values["token"]
    file: Path | None = values["token_file"]
    where = given["token"].where if token is not None else ""
    if file is not None:
        where = given["token_file"].where
        if token is not None:
            raise ConfigError(f"{where}: a token is given twice (also by {given['token'].where})")
        try:
            with file.open("rb") as stream:
                text = stream.read(TOKEN_CHARS_MAX + 2).decode("ascii", "replace")
            token = read_token(text)
        except OSError as error:
            raise ConfigError(f"{where}: cannot read {file}: {error.strerror}") from error
        except QuantityError as error:
            raise ConfigError(f"{where}: what {file} holds {error}") from error
    if token is None or not token.startswith(BOOTSTRAP_PREFIX):
        return token, None
    try:
        return None, parse_bootstrap(token)
    except BootstrapError as error:
        raise ConfigError(f"{where}: {error}") from error


def _resolve_bootstrap(
    values: Mapping[str, Any],
    given: Mapping[str, _Given],
    token: str | None,
    secret: BootstrapSecret | None,
) -> tuple[bool, int]:
    """(whether alone, with how many others and itself)."""
    expect: int = values["bootstrap_expect"] or 0
    if expect and "bootstrap" in given:
        where = given["bootstrap_expect"].where
        if not values["bootstrap"]:
            raise ConfigError(f"{where}: contradicts {given['bootstrap'].where}: false")
        if expect > 1:
            raise ConfigError(f"{where}: contradicts {given['bootstrap'].where}, which makes a mesh alone")
    alone = bool(values["bootstrap"]) or expect == 1
    other = given.get("token") or given.get("token_file")
    if secret is not None and expect < 2:
        assert other is not None, "the secret was given"
        raise ConfigError(
            f"{other.where}: a bootstrap token is for peers that make a mesh together (--bootstrap-expect N)"
        )
    if (alone or expect) and token is not None:
        how = given.get("bootstrap") or given["bootstrap_expect"]
        assert other is not None, "the token was given"
        raise ConfigError(
            f"{how.where}: a peer either makes a new mesh or joins one with a token (given by {other.where})"
        )
    return alone, 0 if expect == 1 else expect


def _resolve_ca(values: Mapping[str, Any], given: Mapping[str, _Given]) -> Ca:
    section = dict(_section(values, "ca"))
    overlap_s: float = section.pop("rollover_overlap_s")
    try:
        rules = SignerRules(**section)
    except CeremonyError as error:
        where = (given.get("ca.threshold") or given["ca.signers"]).where
        raise ConfigError(f"{where}: {error}") from error
    return Ca(rules=rules, rollover_overlap_s=overlap_s)


def _resolve_advertise(
    values: Mapping[str, Any], given: Mapping[str, _Given], find_address: Callable[[], str | None]
) -> str:
    bind = ipaddress.ip_address(values["bind"])
    advertise: str | None = values["advertise"]
    if advertise is None:
        advertise = find_address() if bind.is_unspecified else str(bind)
        if advertise is None:
            raise ConfigError(
                "--advertise: this host has no default route; name the IP address peers reach it at"
            )
    elif not bind.is_unspecified and bind.version != ipaddress.ip_address(advertise).version:
        raise ConfigError(
            f"{given['advertise'].where}: {advertise} and bind {bind} are of different IP versions"
        )
    return advertise


def _check_ports(ports: Ports, given: Mapping[str, _Given]) -> None:
    taken: dict[int, str] = {}
    for name in ("gossip", "inbound", "outbound", "admin"):
        port: int = getattr(ports, name)
        other = taken.setdefault(port, name)
        if other != name:
            where = given.get(f"ports.{name}") or given[f"ports.{other}"]
            raise ConfigError(f"{where.where}: port {port} is given to both {other} and {name}")


def _default_name(hostname: str) -> str:
    """A host's name made to fit: names are labels, so losing a character loses nothing."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", hostname)[:63].strip("._-") or "peer"
