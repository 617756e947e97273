"""Small files beside the database that must survive its loss: what was registered here, and where the mesh is.

Invariant: a reader finds the old content or the new, never a part; nobody but the peer's user can read it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from peer.io.keys import KeyFileError, reason, write_private

FILE_BYTES_MAX: Final = 16 * 1024 * 1024


class StateFileError(Exception):
    """The file cannot be read or written; the message names it. What was on disk is unchanged."""


@dataclass(frozen=True, slots=True)
class StateFile:
    """One such file. Its methods block."""

    path: Path

    def read(self) -> str | None:
        """The content, or None where there is no such file. Raises StateFileError."""
        try:
            with self.path.open("rb") as stream:
                data = stream.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateFileError(f"{self.path}: cannot be read: {reason(self.path, error)}") from error
        if len(data) > FILE_BYTES_MAX:
            raise StateFileError(f"{self.path}: has more than {FILE_BYTES_MAX} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise StateFileError(f"{self.path}: is damaged: not UTF-8") from error

    def read_json(self) -> Any:
        """The value in it, or None where there is no such file. Raises StateFileError."""
        text = self.read()
        try:
            return None if text is None else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise StateFileError(f"{self.path}: is damaged: not JSON ({error})") from error

    def write(self, text: str) -> None:
        """Replace the content, durable when it returns. Raises StateFileError."""
        try:
            write_private(self.path, text.encode())
        except KeyFileError as error:
            raise StateFileError(str(error)) from error
