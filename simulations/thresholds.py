"""What must hold of certificates, whatever is done to who signs them.

- no certificate is issued on the word of fewer signers than a majority of those there are, and no fewer shares than
  that give the root (Shamir, CACM 1979);
- every certificate is signed by the one root the mesh began with, also after the signers have changed;
- once a mesh is whole again and enough signers run, nobody runs with a certificate that has run out.

The threshold is worked out here from the number of seats, and not asked of the code under test.

Invariant: looking changes nothing.
"""

from typing import Final

from simulations.authority import Authority
from simulations.host import Host
from simulations.invariants import FOUND_MAX, Found, Rule
from simulations.world import World
from trust.identity import verify

GRANTS_MAX: Final = 100_000


class Thresholds:
    """Watches one authority from the moment it is made. `found` says what did not hold."""

    def __init__(self, world: World, authority: Authority) -> None:
        self.found: list[Found] = []
        self._world = world
        self._authority = authority
        self._root = authority.group.public
        self._granted: dict[bytes, set[int]] = {}  # by the bytes signed: which hosts gave a share
        self._epoch = 0
        authority.on_granted.append(self._grant)
        authority.on_issued.append(self._issue)
        self._look()

    def settled(self) -> bool:
        """Whether everybody has a certificate that counts, or cannot have one."""
        return not self._authority.able() or not self._authority.overdue()

    def final(self) -> None:
        """Check what must hold after quiet."""
        self._look()
        if self._authority.able():
            for host in self._authority.overdue():
                self._tell(Rule.ISSUED, f"after quiet, {host.name} runs with a certificate that has run out")

    def _demanded(self) -> int:
        return len(self._authority.group.members) // 2 + 1

    def _look(self) -> None:
        """Look at the shares of an epoch, once."""
        group = self._authority.group
        if group.epoch == self._epoch:
            return
        self._epoch = group.epoch
        fewest = self._authority.fewest()
        if fewest < self._demanded():
            what = f"{fewest} of {len(group.members)} shares give the root, {self._demanded()} are demanded"
            self._tell(Rule.THRESHOLD, what)
        if group.public != self._root:
            self._tell(Rule.ONE_ROOT, f"in epoch {group.epoch} the root is another")

    def _grant(self, signer: Host, message: bytes) -> None:
        if len(self._granted) >= GRANTS_MAX:
            self._granted.pop(next(iter(self._granted)))
        self._granted.setdefault(message, set()).add(signer.index)

    def _issue(self, host: Host, message: bytes, signature: bytes) -> None:
        self._look()
        signers = self._granted.get(message, set())
        if len(signers) < self._demanded():
            what = (
                f"{host.name} got a certificate from {len(signers)} signers, {self._demanded()} are demanded"
            )
            self._tell(Rule.THRESHOLD, what)
        if not verify(self._root, message, signature):
            self._tell(Rule.ONE_ROOT, f"{host.name} got a certificate that the mesh's root has not signed")

    def _tell(self, rule: Rule, what: str) -> None:
        if len(self.found) < FOUND_MAX:
            self.found.append(Found(rule, self._world.now - self._world.start_at, what))
