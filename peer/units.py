"""Quantities as people write them: durations ("45s", "1h30m"), percentages ("99%"), peer addresses ("host:port").

Durations are Gateway API's (GEP-2257: up to four number-and-unit parts, units h, m, s, ms), plus a bare number of
seconds and days (`d`), which tokens need.

Invariant: every function returns a finite value in range or raises QuantityError with the words a user should read.
"""

import math
import re
from typing import Final

_PART: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(d|h|ms|m|s)")
_UNIT_S: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_TEXT_CHARS_MAX: Final = 300


class QuantityError(ValueError):
    """The text is no such quantity. Nothing was changed."""


def parse_duration_s(text: str | float) -> float:
    """Seconds of "45s", "1h30m", "250ms", "7d", or of a bare number."""
    if isinstance(text, bool):
        raise QuantityError(f"{text} is not a duration; write it like 45s, 5m or 1h30m")
    seconds = _duration_text_s(text.strip()) if isinstance(text, str) else float(text)
    if not math.isfinite(seconds) or seconds < 0:
        raise QuantityError(f"{text} is not a duration; write it like 45s, 5m or 1h30m")
    return seconds


def _duration_text_s(text: str) -> float:
    if len(text) <= _TEXT_CHARS_MAX:
        if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text):
            return float(text)
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    raise QuantityError(f"{text[:40]!r} is not a duration; write it like 45s, 5m or 1h30m")


def parse_percent(text: str | float) -> float:
    """A percentage above 0 and up to 100, of "99%", "99.5" or a number."""
    if isinstance(text, str):
        match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%?", text.strip())
        value = float(match.group(1)) if match else math.nan
    else:
        value = float(text)
    if isinstance(text, str) and "%" not in text and 0 < value <= 1:
        raise QuantityError(f"{text!r} could be a share or a percentage; write it like 99%")
    if not 0 < value <= 100:
        raise QuantityError(f"{text!r} is not a percentage; write it like 99%")
    return value


def parse_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """("10.0.0.1", 7946) of "10.0.0.1:7946", "[::1]:7946", "host.example:7946" or, with a default port, "host".

    Names are not resolved here: an address may change, a seed list may not.
    """
    host, port_text = _split_address(text.strip())
    if len(text) > _TEXT_CHARS_MAX or not (_is_ipv6(host) if ":" in host else _HOST.fullmatch(host)):
        raise QuantityError(f"{text[:60]!r} is not an address; write it like 10.0.0.1:7946")
    if port_text is None:
        if default_port is None:
            raise QuantityError(f"{text[:60]!r} has no port; write it like {host}:7946")
        return host, default_port
    if not re.fullmatch(r"[0-9]{1,5}", port_text) or not 1 <= int(port_text) <= 65_535:
        raise QuantityError(f"{text[:60]!r}: port {port_text[:20]!r} is not a number from 1 to 65535")
    return host, int(port_text)


def _is_ipv6(host: str) -> bool:
    import ipaddress

    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _split_address(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", None
        return host, rest[1:] if rest else None
    if text.count(":") > 1:  # a bare IPv6 address
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def format_address(address: tuple[str, int]) -> str:
    """Inverse of `parse_address`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def format_age(seconds: float) -> str:
    """A duration as tables show it, in its one largest unit: 7s, 12m, 3h, 41d."""
    seconds = max(0.0, seconds)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * size or (unit == "d" and seconds >= size):
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"
