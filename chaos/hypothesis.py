"""The steady-state hypothesis: which invariants must hold, and within which bounds.

Safety is looked at throughout; liveness once everything that was done has been undone, `within` so much time. What is
not named is not judged, except for the safety of the mesh itself, which always is: no experiment passes in which an
acknowledged policy was lost.

Invariant: an invariant has one name and one meaning on every driver; which driver can see it, the driver says.
"""

from enum import Enum
from typing import Final

from pydantic import Field

from chaos.values import Model, Seconds, Share


class Invariant(Enum):
    """What can be asked of a mesh."""

    # safety
    NO_LOSS = "nothing-acknowledged-is-lost"
    NO_RESURRECTION = "nothing-deleted-comes-back"
    EQUAL_STATE = "equal-heads-mean-equal-state"
    MONOTONE = "incarnations-only-rise"
    BOUNDED = "queues-are-bounded"
    NO_REUSE = "no-number-is-used-twice"
    EVIDENCE = "nobody-is-condemned-without-evidence"
    STAMPS = "no-record-counts-before-its-time"
    AUTHORIZED = "no-unauthorised-request-succeeds"
    ONE_ROOT = "one-root"
    THRESHOLD = "no-certificate-below-the-threshold"
    # liveness, after everything was undone
    VIEWS = "views-agree"
    JOURNALS = "journals-agree"
    SERVING = "services-answer"
    ISSUED = "certificates-are-issued"
    # while a partition stands
    SIDES = "each-side-keeps-serving"


SAFETY: Final = frozenset(
    {
        Invariant.NO_LOSS,
        Invariant.NO_RESURRECTION,
        Invariant.EQUAL_STATE,
        Invariant.MONOTONE,
        Invariant.BOUNDED,
        Invariant.NO_REUSE,
        Invariant.EVIDENCE,
        Invariant.STAMPS,
        Invariant.AUTHORIZED,
        Invariant.ONE_ROOT,
        Invariant.THRESHOLD,
    }
)
OF_SIGNERS: Final = frozenset({Invariant.ONE_ROOT, Invariant.THRESHOLD, Invariant.ISSUED})


class Bounds(Model):
    """Figures with limits. None: not judged. Times are seconds."""

    heals: Seconds | None = None  # from the end of the timeline until views and journals agree
    detects: Seconds | None = None  # from a kill until every other reachable node saw it dead
    false_positives: int | None = Field(default=None, alias="false-positives", ge=0)
    suspicions: int | None = Field(default=None, ge=0)  # of nodes that ran all the time
    success: Share | None = None  # of requests, over the whole run
    success_against_control: Share | None = Field(default=None, alias="success-against-control")
    # ^ of that of the same mesh, workload and time without any fault, which is run first


class Hypothesis(Model):
    """What must hold. `within` bounds how long quiet is waited for."""

    title: str = Field(default="the mesh is whole", max_length=200)
    within: Seconds = 60.0
    invariants: tuple[Invariant, ...] = (Invariant.VIEWS, Invariant.JOURNALS)
    bounds: Bounds = Bounds()

    @property
    def judged(self) -> frozenset[Invariant]:
        """What is named, and safety."""
        return frozenset(self.invariants) | SAFETY
