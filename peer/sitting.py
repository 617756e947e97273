"""One ceremony at one participant: the pure machine with its file.

What a participant has said it must find again after a crash, so the machine's memory is on disk before anything that
depends on it leaves (`trust/ceremony/events.py`, Store). Inputs that have gathered are taken in one go: the memory
after the last of them covers them all, and one write is enough.

    keys/ceremony-0000000007.key    the memory of the ceremony for epoch 7; secret, gone once the epoch's share is kept

Each memory takes the place of the one before, whose bytes are overwritten: it held the seed of a dealing and shares.

Invariant: outputs are returned only after the memory that backs them is durable.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias, assert_never

from peer.io.keys import KeyFileError, Keys, erase_private, read_private, replace_secret
from trust.ceremony.electorate import Electorate
from trust.ceremony.events import (
    CeremonyStatus,
    Convicted,
    Input,
    Refused,
    Rejected,
    Retrying,
    Sealed,
    Send,
    Store,
    Timing,
)
from trust.ceremony.growth import SignerRules
from trust.ceremony.machine import Ceremony
from trust.errors import CeremonyError
from trust.groupkey import KeyShare
from trust.identity import NodeIdentity, format_id

Effect: TypeAlias = Send | Sealed | Convicted | Retrying | Refused | Rejected

_FILES: Final = "ceremony-*.key"
_PREFIX: Final = "ceremony-"


def memory_path(keys: Keys, epoch: int) -> Path:
    """Where the memory of the ceremony for `epoch` is."""
    return keys.directory / f"{_PREFIX}{epoch:010d}.key"


def remembered(keys: Keys) -> list[int]:
    """The epochs of which a memory is on disk, ascending."""
    numbers = (path.stem.removeprefix(_PREFIX) for path in keys.directory.glob(_FILES))
    return sorted(int(number) for number in numbers if number.isdigit())


class Sitting:
    """See the module's theory. Takes up what is stored. Raises KeyFileError, CeremonyError: the memory cannot be used,
    and this node must not take part in that epoch's ceremony any more."""

    def __init__(
        self,
        *,
        keys: Keys,
        electorate: Electorate,
        identity: NodeIdentity,
        rules: SignerRules,
        share: KeyShare | None,
        now: Callable[[], float],
        timing: Timing | None = None,
        path: Path | None = None,
    ) -> None:
        """`path` is where the memory is, if not at `memory_path`."""
        self.electorate = electorate
        self.epoch = electorate.epoch
        self._path = path or memory_path(keys, electorate.epoch)
        self._now = now
        memory = read_private(self._path, secret=True)
        try:
            self._machine = Ceremony(
                identity=identity,
                electorate=electorate,
                rules=rules,
                entropy=secrets.token_bytes,
                share=share,
                timing=timing,
                memory=memory,
            )
        except CeremonyError as error:
            raise CeremonyError(f"{self._path}: {error}") from None

    @property
    def name(self) -> bytes:
        """The ceremony's, with which its frames begin."""
        return self._machine.ceremony

    @property
    def deadline(self) -> float | None:
        """When it wants to be stepped, by the clock it was given."""
        return self._machine.deadline

    @property
    def status(self) -> CeremonyStatus:
        """Where it stands."""
        return self._machine.status()

    async def step(self, given: Iterable[Input]) -> list[Effect]:
        """What the inputs lead to, durable. Raises KeyFileError: nothing of it has happened, and the sitting must be
        dropped and taken up again from what is stored."""
        effects: list[Effect] = []
        memory: bytes | None = None
        for each in given:
            for output in self._machine.step(self._now(), each):
                if isinstance(output, Store):
                    memory = output.data
                else:
                    effects.append(output)
        if memory is not None:
            await asyncio.to_thread(replace_secret, self._path, memory)
        return effects

    def told(self, effect: Convicted | Retrying | Refused) -> dict[str, object]:
        """What a log says of it."""
        fields: dict[str, object] = {"epoch": self.epoch}
        match effect:
            case Convicted():
                fields |= {"node": format_id(effect.node)}
            case Retrying():
                awaited = ", ".join(map(format_id, effect.awaited))
                fields |= {"attempt": effect.attempt, "reason": effect.reason, "awaited": awaited}
            case Refused():
                opened_by = format_id(effect.node)
                fields |= {"attempt": effect.attempt, "opened_by": opened_by, "reason": effect.reason}
            case _:
                assert_never(effect)
        return fields

    def forget(self) -> None:
        """The epoch's share is kept elsewhere: erase the memory. Raises KeyFileError."""
        self._machine.wipe()
        erase_private(self._path)

    def __repr__(self) -> str:
        return f"Sitting({self._machine!r})"


def erased(keys: Keys, epoch: int) -> bool:
    """Whether a crash came between the erasure of that memory and its removal. Raises KeyFileError."""
    return not any(read_private(memory_path(keys, epoch), secret=True) or b"?")


def forget_memory(keys: Keys, epoch: int) -> str:
    """Erase the memory of a ceremony that has ended; what went wrong, "" for nothing."""
    try:
        erase_private(memory_path(keys, epoch))
    except KeyFileError as error:
        return str(error)
    return ""
