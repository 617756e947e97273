"""Who is where: the joins of the electors, who waits for whom, and what a leader opens an attempt with.

Electors leave an attempt when their time for it is over. So that they meet again however far apart they got, the time
of an attempt only runs while a quorum has come at least that far (who is ahead waits), and who is behind goes
straight to where the others must be (`common_attempt`). As in the view changes of PBFT, one liar alone moves nobody,
unless the quorum cannot do without it.

Invariant: an opening made here is justified (`lock.check_justified`): a quorum joined, and no lock is passed
over.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from trust.ceremony.bodies import Join, Opening, decode_join
from trust.ceremony.electorate import Electorate
from trust.ceremony.growth import SignerRules
from trust.ceremony.lock import Lock
from trust.ceremony.selection import select
from trust.ceremony.statement import Statement, decode_statement
from trust.identity import node_id

BLAME_ATTEMPTS: Final = 4  # for how many attempts a blame is remembered
BLAMED_MAX: Final = 16
JOINS_MAX: Final = 64  # of nodes that are no electors: what they say of each other helps, no more
_ABANDONS_BORNE: Final = 2  # of one participant, before it is blamed: a crash is no habit
_REFUSALS_BORNE: Final = 8  # the same for refused openings: in so many attempts, views have become one


class Standing:
    """Whose word counts: everybody's but that of the convicted and of those that must not be signers any more."""

    __slots__ = ("barred", "convictions")

    def __init__(self) -> None:
        self.convictions: dict[bytes, Statement] = {}  # by node id, the accusation
        self.barred: frozenset[bytes] = frozenset()

    def counts(self, node: bytes) -> bool:
        """Whether what `node` says counts."""
        return node not in self.convictions and node not in self.barred


class Gathering:
    """See the module's theory."""

    def __init__(self, electorate: Electorate, standing: Standing) -> None:
        self.joins: dict[bytes, Statement] = {}  # the latest of each node, electors and others
        self._electorate = electorate
        self._standing = standing
        self._blamed: dict[bytes, int] = {}  # node id, the attempt that waited for it
        self._abandons: dict[bytes, int] = {}
        self._refusals: dict[bytes, int] = {}

    def add(self, said: Statement) -> None:
        """Note a genuine JOIN, if it is the latest of its node."""
        known = self.joins.get(said.node)
        if known is None and said.node not in self._electorate.ids and len(self.joins) >= JOINS_MAX:
            return
        if known is None or said.attempt > known.attempt:
            self.joins[said.node] = said

    def elector_joins(self) -> list[Statement]:
        """The latest joins of electors whose word counts."""
        ids = self._electorate.ids
        return [said for node, said in self.joins.items() if node in ids and self._standing.counts(node)]

    def quorate(self, number: int) -> bool:
        """Whether a quorum is in attempt `number` or further: only then does its time run."""
        joined = [each.node for each in self.elector_joins() if each.attempt >= number]
        return self._electorate.decided(joined, self._standing.convictions)

    def common_attempt(self) -> int:
        """The attempt in which electors should be. An honest one is as far if more than `faults` are, and an attempt
        that too many have left for a later one will not get its quorum. -1 if nothing is known."""
        faults, ids = self._electorate.faults, self._electorate.ids
        where = sorted(
            self.joins[node].attempt if node in self.joins else -1
            for node in ids
            if self._standing.counts(node)
        )
        needed = self._electorate.quorum - (len(ids) - len(where))
        honest = where[-1 - faults] if len(where) > faults else -1
        possible = where[needed - 1] if 0 < needed <= len(where) else -1
        return max(honest, possible)

    # -------------------------------------------------------------- blame

    def left(self, said: Statement, join: Join, number: int) -> None:
        """A participant left the open attempt `number` early. Who tells for whom it waited is excused, and for a while
        who names itself: it refused what the attempt was opened with."""
        if said.node in join.blamed:
            self._refusals[said.node] = self._refusals.get(said.node, 0) + 1
            if self._refusals[said.node] >= _REFUSALS_BORNE:
                self._blamed[said.node] = number
            return
        self._abandons[said.node] = self._abandons.get(said.node, 0) + (not join.blamed)
        if self._abandons[said.node] >= _ABANDONS_BORNE:
            self._blamed[said.node] = number

    def blame(self, nodes: Iterable[bytes], number: int) -> None:
        """This node has been waiting for `nodes` in attempt `number`."""
        for node in nodes:
            self._blamed[node] = number

    def refuse(self, me: bytes, number: int) -> None:
        """This node refuses what attempt `number` was opened with."""
        self._blamed[me] = number

    def excused(self, opening: Opening, me: bytes) -> frozenset[bytes]:
        """Whom the opening may leave out for what they did in this ceremony: this node waited for them in vain, or as
        many electors as have the root together say that they did, so that one of them is honest."""
        group = self._electorate.group
        joins = [decode_statement(each) for each in opening.joins]
        said = Counter(
            each for join in joins for each in decode_join(join.body).blamed if each not in (join.node, me)
        )
        needed = len(joins) + 1 if group is None else group.threshold
        own = frozenset(self._blamed) - {me}
        return own | {node for node, count in said.items() if count >= needed}

    def blamed(self, number: int) -> tuple[bytes, ...]:
        """Whom this node blames on entering attempt `number`; older blames are forgotten."""
        self._blamed = {n: at for n, at in self._blamed.items() if number - at <= BLAME_ATTEMPTS}
        return tuple(sorted(self._blamed)[:BLAMED_MAX])

    # -------------------------------------------------------------- the leader's part

    def opening(
        self,
        number: int,
        lock: Lock | None,
        rules: SignerRules,
        wanted: Iterable[bytes],
        *,
        patient: bool,
    ) -> Opening | None:
        """What to open attempt `number` with; None if it cannot be opened (yet). `lock` is the highest that is known
        here, `wanted` who should be the signers (public keys; at a founding whoever joined). With `patient`, wait for
        electors that have not joined."""
        convicted = self._standing.convictions
        joins: dict[bytes, tuple[Statement, Join]] = {}
        for said in self.elector_joins():
            join = decode_join(said.body)
            if said.attempt == number and join.lock <= (lock.attempt if lock else -1):
                joins[said.node] = (said, join)
        if not self._electorate.decided(joins, convicted):
            return None
        justified = tuple(joins[node][0].encode() for node in sorted(joins))
        if lock is not None and any(join.lock >= 0 for _, join in joins.values()):
            value, prepares = lock.value.encode(), lock.prepares
            return Opening(
                threshold=0, dealers=(), receivers=(), joins=justified, value=value, prepares=prepares
            )
        missing = [node for node in self._electorate.ids if node not in joins and self._standing.counts(node)]
        if missing and patient:
            return None
        if self._electorate.group is None:
            wanted = [said.sender for said, _ in joins.values()]
        choice = select(
            self._electorate,
            rules,
            wanted=[key for key in wanted if self._standing.counts(node_id(key))],
            able=[node for node, (_, join) in joins.items() if join.able],
            blames=self._blames(number),
            convicted=convicted,
            attempt=number,
        )
        if choice is None:
            return None
        return Opening(
            threshold=choice.threshold, dealers=choice.dealers, receivers=choice.receivers, joins=justified
        )

    def _blames(self, number: int) -> dict[bytes, tuple[bytes, ...]]:
        return {
            node: decode_join(said.body).blamed
            for node, said in self.joins.items()
            if said.attempt >= number and self._standing.counts(node)
        }
