"""A ceremony's machine with its file: what a log says of what went wrong in it."""

from pathlib import Path

from peer.io.keys import Keys
from peer.sitting import Sitting
from trust.ceremony.electorate import founding
from trust.ceremony.events import Convicted, Refused, Retrying
from trust.ceremony.growth import SignerRules
from trust.identity import NodeIdentity, format_id

ME, OTHER = (NodeIdentity.from_seed(bytes([number]) * 32) for number in (1, 2))


def test_a_log_is_told_who_and_why_in_which_attempt(tmp_path: Path) -> None:
    electorate = founding("cluster.local", [ME.public_key, OTHER.public_key], threshold=2)
    sitting = Sitting(
        keys=Keys.open(tmp_path), electorate=electorate, identity=ME, rules=SignerRules(), share=None, now=lambda: 0.0
    )  # fmt: skip
    who = format_id(OTHER.id)
    awaited = (ME.id, OTHER.id)
    for effect, fields in (
        (Convicted(node=OTHER.id, evidence=b""), {"node": who}),
        (
            Retrying(attempt=2, reason="late", awaited=awaited),
            {"attempt": 2, "reason": "late", "awaited": f"{format_id(ME.id)}, {who}"},
        ),
        (Refused(node=OTHER.id, attempt=3, reason="no"), {"attempt": 3, "opened_by": who, "reason": "no"}),
    ):
        assert sitting.told(effect) == {"epoch": 0} | fields
