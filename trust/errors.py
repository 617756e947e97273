"""What can be wrong with trust material: one base class, one subclass per noun.

Each message is a sentence for the person who reads it: what was found, what was expected, and, where there is
something to do, what. None of them ever contains a secret. Whatever raises one of these changed no state.

Invariant: decoders and verifiers in this package raise nothing but these, whatever bytes they are fed.
"""


class TrustError(Exception):
    """Base of all errors of this package. No state was changed."""


class IdentityError(TrustError):
    """A node id, name, key or SPIFFE ID is not well-formed. No state was changed."""


class CredentialError(TrustError):
    """A node credential is malformed, forged, expired, or of another mesh. No state was changed."""


class AuthorityError(TrustError):
    """The authority cannot sign, or what it signed does not verify. No state was changed."""


class SvidError(TrustError):
    """A certificate breaks the X.509-SVID rules, or a request for one may not be granted. No state was changed."""


class TokenError(TrustError):
    """A join token is malformed, altered, expired, used up, or grants more than its issuer has. No state was
    changed: a refused join uses up nothing."""


class BootstrapError(TrustError):
    """Peers that would found a mesh together do not belong together, or a token for it is malformed. No state was
    changed."""


class AdmissionError(TrustError):
    """A request to join or renew is malformed or not signed by who it says. No state was changed."""


class RevocationError(TrustError):
    """A revocation is malformed, not signed by one entitled to it, or the set is full. No state was changed."""


class RevokedError(TrustError):
    """The subject is well-formed and was valid, but has been revoked. No state was changed."""


class OrderError(TrustError):
    """What a coordinator wants signed is malformed, or no signer may sign it. No state was changed."""


class UnheardRootError(OrderError):
    """The order is of a root that is none of the mesh's as far as is known here. It may be known later. No state was
    changed."""


class GroupError(TrustError):
    """Bytes are no scalar or point of the group, or an identifier is zero or there twice. No state was changed."""


class DealingError(TrustError):
    """What a participant of a key ceremony dealt is malformed, or its proof or a share is wrong. No state was
    changed."""


class SessionError(TrustError):
    """A message of a signing session is malformed. No state was changed."""


class FrostError(TrustError):
    """A threshold signature cannot be made of these parts. `culprits` are the identifiers of the participants whose
    parts are provably wrong; empty when it is the caller's doing. Nonces given to the call that raised are gone."""

    def __init__(self, message: str, culprits: tuple[bytes, ...] = ()) -> None:
        super().__init__(message)
        self.culprits = culprits


class CeremonyError(TrustError):
    """A statement, record or request of a key ceremony is malformed, forged or out of place. No state was changed."""


class EpochError(TrustError):
    """An epoch record is malformed, undecided, unproven, or does not follow on the one before. No state was changed."""


class RolloverError(TrustError):
    """What says that one root follows on another is malformed, not signed by both, or leads from no root that is
    known. No state was changed."""


def span(seconds: float) -> str:
    """A length of time as people say it: "45 seconds", "3 hours", "2 days". For messages only."""
    for unit, length_s in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= length_s:
            count = int(seconds // length_s)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{int(seconds)} second{'s' if int(seconds) != 1 else ''}"
