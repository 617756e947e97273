"""The table of a peer's configuration keys: each with its name, how a value is read, its default and its bounds.

A value arrives as YAML made it (from the file) or as text (from the environment and flags); one reader takes both.

Invariant: a reader returns a value in range or raises QuantityError, whose words follow "<where>: <key> ".
Secrets are never repeated in a message.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from peer.units import QuantityError, parse_address, parse_duration_s
from proxy.snapshot import Limits
from trust.bootstrap import EXPECT_MAX
from trust.ceremony.electorate import SIGNERS_MAX
from trust.ceremony.growth import GONE_S, SETTLE_S
from trust.rollover import OVERLAP_S, OVERLAP_S_MAX, OVERLAP_S_MIN

Address = tuple[str, int]

ENVIRONMENT_PREFIX: Final = "GOSSAMER_"
GOSSIP_PORT: Final = 7946
SEEDS_MAX: Final = 64
TOKEN_CHARS_MAX: Final = 16 * 1024
WORKERS_MAX: Final = 64

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?")


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise QuantityError(f"must be text, is {_describe(raw)}")
    return raw.strip()


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(raw: Any) -> int:
        if isinstance(raw, str) and re.fullmatch(r"\s*[0-9]{1,18}\s*", raw):
            raw = int(raw)
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise QuantityError(f"must be a whole number, is {_describe(raw)}")
        if not low <= raw <= high:
            raise QuantityError(f"must be from {low} to {high}, is {raw}")
        return raw

    return read


def _seconds(low: float, high: float) -> Callable[[Any], float]:
    def read(raw: Any) -> float:
        if not isinstance(raw, (str, int, float)):
            raise QuantityError(f"must be a duration like 45s, is {_describe(raw)}")
        value = parse_duration_s(raw)
        if not low <= value <= high:
            raise QuantityError(f"must be from {low:g}s to {high:g}s, is {value:g}s")
        return value

    return read


def _truth(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    word = raw.strip().lower() if isinstance(raw, str) else ""
    if word in {"true", "yes", "on", "1"}:
        return True
    if word in {"false", "no", "off", "0"}:
        return False
    raise QuantityError(f"must be true or false, is {_describe(raw)}")


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(raw: Any) -> str:
        word = _text(raw).lower()
        if word not in choices:
            raise QuantityError(
                f"must be one of {', '.join(choices)}; is {raw!r}{did_you_mean(word, choices)}"
            )
        return word

    return read


def _engine(raw: Any) -> str:
    word = _text(raw).lower()
    if word == "envoy":
        raise QuantityError("engine envoy is not supported by this version; the only engine is embedded")
    return _one_of("embedded")(word)


def _name(raw: Any) -> str:
    word = _text(raw)
    if not _NAME.fullmatch(word):
        raise QuantityError(f"must be 1 to 63 letters, digits, '.', '_' or '-'; is {word[:80]!r}")
    return word


def _zone(raw: Any) -> str:
    return _name(raw) if raw != "" else ""


def _trust_domain(raw: Any) -> str:
    word = _text(raw)
    if not _TRUST_DOMAIN.fullmatch(word):
        raise QuantityError(
            f"must be 1 to 128 lower-case letters, digits, '.', '_' or '-' (SPIFFE); is {word[:80]!r}"
        )
    return word


def _ip(raw: Any) -> str:
    word = _text(raw)
    try:
        return str(ipaddress.ip_address(word))
    except ValueError as error:
        raise QuantityError(f"must be an IP address, is {word[:80]!r}") from error


def _advertised_ip(raw: Any) -> str:
    word = _ip(raw)
    if ipaddress.ip_address(word).is_unspecified:
        raise QuantityError(f"must be an address other peers can reach, {word} means every one of this host")
    return word


def parse_seed(text: str) -> Address:
    """A peer's address; without a port, the gossip port. Raises QuantityError (a ValueError)."""
    return parse_address(text, GOSSIP_PORT)


def _seeds(raw: Any) -> tuple[Address, ...]:
    items = [part for part in raw.split(",") if part.strip()] if isinstance(raw, str) else raw
    if not isinstance(items, (list, tuple)):
        raise QuantityError(f"must be a list of host:port, is {_describe(raw)}")
    if len(items) > SEEDS_MAX:
        raise QuantityError(f"at most {SEEDS_MAX} seeds, these are {len(items)}")
    return tuple(dict.fromkeys(parse_seed(_text(item)) for item in items))


def _workers(raw: Any) -> int:
    if raw == "auto":
        return min(os.cpu_count() or 1, WORKERS_MAX)
    if isinstance(raw, str) and not re.fullmatch(r"[0-9]+", raw.strip()):
        raise QuantityError(f"must be a whole number or auto, is {raw[:40]!r}")
    return _whole(1, WORKERS_MAX)(raw)


def _path(raw: Any) -> Path:
    word = _text(raw)
    if not word or "\0" in word:
        raise QuantityError("must be a path")
    try:
        return Path(word).expanduser()
    except RuntimeError as error:
        raise QuantityError(f"names a home directory that there is not: {word[:80]!r}") from error


def _access_log(raw: Any) -> bool | Path:
    try:
        return _truth(raw)
    except QuantityError:
        if isinstance(raw, str) and ("/" in raw or "." in raw):
            return _path(raw)
    raise QuantityError(f"must be true, false or a path, is {_describe(raw)}")


def _signers(raw: Any) -> int | None:
    """None for `auto`."""
    if raw == "auto":
        return None
    if isinstance(raw, str) and not re.fullmatch(r"[0-9]+", raw.strip()):
        raise QuantityError(f"must be a whole number or auto, is {raw[:40]!r}")
    return _whole(1, SIGNERS_MAX)(raw)


def read_token(raw: Any) -> str:
    word = _text(raw)
    if not re.fullmatch(r"gs[mb]1\.[A-Za-z0-9_=-]+", word) or len(word) > TOKEN_CHARS_MAX:
        # The text itself is a secret, or half of one: it is not repeated.
        raise QuantityError(
            "is not a join token (they start with gsm1. and come from: gossamer token create)"
        )
    return word


def _describe(raw: Any) -> str:
    if raw is None:
        return "empty"
    if isinstance(raw, Mapping):
        return "a mapping"
    if isinstance(raw, (list, tuple)):
        return "a list"
    return repr(raw)[:80]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Text like " (did you mean X?)" when something close is among `choices`, else ""; to append to a message."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


# ---------------------------------------------------------------- the table of keys


@dataclass(frozen=True, slots=True)
class Key:
    """One configuration key. `name` is "key" or "section.key"."""

    name: str
    read: Callable[[Any], Any]
    default: Any
    help: str

    @property
    def variable(self) -> str:
        """Its environment twin."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace(".", "_")


_LIMITS: Final = Limits()
_PORT: Final = _whole(1, 65_535)

KEYS: Final = (
    Key("data_dir", _path, "./gossamer-data", "state, keys and the admin socket of this peer"),
    Key("name", _name, None, "label of this peer; default: the host's name"),
    Key("bind", _ip, "0.0.0.0", "IP address to listen on"),  # noqa: S104  peers are meant to be reached
    Key("advertise", _advertised_ip, None, "IP address other peers use; default: bind, or the outgoing one"),
    Key("seeds", _seeds, (), "addresses of some peers, host:port"),
    Key("token", read_token, None, "join token"),
    Key("token_file", _path, None, "file that holds the join token"),
    Key("bootstrap", _truth, False, "make a new mesh if this peer has no identity yet"),
    Key("bootstrap_expect", _whole(1, EXPECT_MAX), None, "number of first peers that make the mesh together"),
    Key(
        "accept_state_loss",
        _truth,
        False,
        "go on from what this peer holds: nobody holds more (heeded at one start)",
    ),
    Key("zone", _zone, "", "failure domain; traffic prefers its own"),
    Key("profile", _one_of("lan", "wan", "local"), "lan", "gossip timing"),
    Key("trust_domain", _trust_domain, "cluster.local", "SPIFFE trust domain of a new mesh"),
    Key("engine", _engine, "embedded", "data plane"),
    Key("workers", _workers, 1, "data-plane processes, or auto"),
    Key("services_dir", _path, None, "watched for service files; default: services.d in the data directory"),
    Key("access_log", _access_log, True, "true (standard output), false or a path"),
    Key("drain_timeout_s", _seconds(0, 3600), 45.0, "how long requests in flight may take at a stop"),
    Key("clock_drift_max_s", _seconds(0.1, 3600), 5.0, "records stamped further ahead are quarantined"),
    Key("ports.gossip", _PORT, GOSSIP_PORT, "UDP and TCP, peer to peer"),
    Key("ports.inbound", _PORT, 15006, "mTLS from other peers"),
    Key("ports.outbound", _PORT, 15001, "loopback proxy for local callers"),
    Key("ports.admin", _PORT, 15020, "loopback metrics and health"),
    Key("limits.header_bytes_max", _whole(1024, 1024 * 1024), _LIMITS.header_bytes_max, "431 beyond it"),
    Key("limits.headers_max", _whole(8, 10_000), _LIMITS.headers_max, "431 beyond it"),
    Key("limits.idle_timeout_s", _seconds(1, 86_400), _LIMITS.idle_timeout_s, "idle connections are closed"),
    Key("limits.header_timeout_s", _seconds(0.1, 600), _LIMITS.header_timeout_s, "408 beyond it"),
    Key("limits.connections_max", _whole(1, 1_000_000), _LIMITS.connections_max, "per worker"),
    Key(
        "ca.signers",
        _signers,
        "auto",
        "how many peers hold the root's key in shares; auto: 1, then 3, then 5",
    ),
    Key("ca.threshold", _signers, "auto", "how many of them make a signature; auto: a majority"),
    Key(
        "ca.settle_s", _seconds(0, 86_400), SETTLE_S, "how long a peer is a member before it may be a signer"
    ),
    Key(
        "ca.gone_s",
        _seconds(1, 30 * 86_400),
        GONE_S,
        "how long a signer is gone before another takes its place",
    ),
    Key(
        "ca.rollover_overlap_s",
        _seconds(OVERLAP_S_MIN, OVERLAP_S_MAX),
        float(OVERLAP_S),
        "how long the old root counts beside a new one; who is away for longer has its credential renewed",
    ),
    Key("svid.ttl_s", _seconds(10, 86_400), 3600.0, "life of the certificates this host issues as a signer"),
    Key("log.level", _one_of("debug", "info", "warning", "error"), "info", "least severity written"),
    Key("log.format", _one_of("text", "json"), "text", "of the log on standard error"),
)
KEYS_BY_NAME: Final = {key.name: key for key in KEYS}
SECTIONS: Final = frozenset(name.partition(".")[0] for name in KEYS_BY_NAME if "." in name)
