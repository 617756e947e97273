"""What can be wrong in this package: local misuse raises, hostile bytes become `Rejected` (gossip/events.py)."""


class GossipError(Exception):
    """Base of all errors of this package."""


class ConfigError(GossipError, ValueError):
    """A configuration that cannot work. Raised while it is built: no state was changed."""


class LimitError(GossipError, ValueError):
    """The caller asked for more than fits (a payload, metadata, a name). No state was changed."""


class MalformedError(GossipError):
    """Bytes that do not decode. Internal: it ends as `Rejected`. No state was changed."""


class ForgedError(GossipError):
    """Bytes that do not authenticate. Internal: it ends as `Rejected`. No state was changed."""


class ExchangeError(GossipError):
    """The other side of a stream broke the protocol of the exchange, which is over. What it told before stands."""
