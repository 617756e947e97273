"""Since when each node has been a member, as far as this one knows: the earliest moment of issue among the credentials
of it that were ever seen here. The root signed each of them, so nobody looks older than it is; who renews, or does
not, looks no younger to anybody that knew it before.

    members-since.json    node id, Unix s; damaged or lost: it begins again with the credentials there are

Invariant: a noted moment only ever becomes an earlier one. KNOWN_MAX nodes are noted; where there are more, those that
are members now, and of these whoever was noted first.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from peer.io.statefile import StateFile, StateFileError
from trust.credential import Credential
from trust.errors import IdentityError
from trust.identity import format_id, parse_id

log = logging.getLogger("gossamer.ceremony")

FILE_NAME: Final = "members-since.json"
KNOWN_MAX: Final = 16_384  # more members than a mesh has; some 700 KB
NOTE_S: Final = 30.0  # a credential that replaces another one is half its life younger, which is days


class Seniority:
    """See the module's theory. `credentials`, by node id, are those of the members, verified."""

    def __init__(self, file: StateFile, credentials: Callable[[], Mapping[bytes, Credential]]) -> None:
        self._file = file
        self._credentials = credentials
        self._since: dict[bytes, int] = {}
        self._kept = True
        try:
            self._since = _read(file.read_json())
        except (StateFileError, IdentityError, ValueError) as error:
            log.warning("members_since_unread", extra={"fields": {"reason": str(error)}})
        self.note()

    @classmethod
    def of(cls, data_dir: Path, credentials: Callable[[], Mapping[bytes, Credential]]) -> "Seniority":
        """What the last run knew."""
        return cls(StateFile(data_dir / FILE_NAME), credentials)

    def since(self, credential: Credential) -> int:
        """When (Unix s) its node was a member at the latest."""
        return min(credential.issued_at, self._since.get(credential.node, credential.issued_at))

    def note(self) -> None:
        """Look at the credentials there are now."""
        credentials = self._credentials()
        for node, credential in credentials.items():
            known = self._since.get(node)
            if known is not None and known <= credential.issued_at:
                continue
            if known is None and len(self._since) >= KNOWN_MAX:
                self._since = {each: at for each, at in self._since.items() if each in credentials}
                if len(self._since) >= KNOWN_MAX:
                    return
            self._since[node] = credential.issued_at
            self._kept = False

    async def run(self) -> None:
        """Note who comes, and keep it, for ever."""
        while True:
            self.note()
            await self.keep()
            await asyncio.sleep(NOTE_S)

    async def keep(self) -> None:
        """Write what is new. What cannot be written is tried again."""
        if self._kept:
            return
        self._kept = True
        text = json.dumps({format_id(node): at for node, at in self._since.items()})
        try:
            await asyncio.to_thread(self._file.write, text)
        except StateFileError as error:
            self._kept = False
            log.warning("members_since_unwritten", extra={"fields": {"reason": str(error)}})

    def __repr__(self) -> str:
        return f"Seniority(nodes={len(self._since)}, kept={self._kept})"


def _read(rows: Any) -> dict[bytes, int]:
    if rows is None:
        return {}
    if not isinstance(rows, dict) or len(rows) > KNOWN_MAX:
        raise ValueError("this is not a list of members")
    found: dict[bytes, int] = {}
    for name, at in rows.items():
        if not isinstance(at, int) or isinstance(at, bool) or at < 0:
            raise ValueError(f"{name[:40]!r} was no member at {at!r:.40}")
        found[parse_id(name)] = at
    return found
