"""A JSON file that is there whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

MAX_STATE_BYTES = 256 * 1024 * 1024
"""A longer file is another one; a device named by mistake has no end, and would fill the memory."""


class StateFileError(Exception):
    """The file cannot be read or written. The message names it."""


class StateFile:
    """Keeps one JSON object."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """What was written last; empty if nothing was. Raises StateFileError."""
        try:
            with self.path.open("rb") as file:
                kept = file.read(MAX_STATE_BYTES + 1)
            if len(kept) > MAX_STATE_BYTES:
                raise StateFileError(
                    f"{self.path} cannot be used: it is over {MAX_STATE_BYTES} bytes, no state of "
                    "a scaler; name another file"
                )
            value = msgspec.json.decode(kept, type=dict[str, Any])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError) as error:
            raise StateFileError(f"{self.path} cannot be used: {error}") from None
        return value

    def write(self, value: dict[str, Any]) -> None:
        """Replace what is there. Raises StateFileError."""
        draft = self.path.with_name(f"{self.path.name}.new")
        try:
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(value))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            with suppress(OSError):  # a disk that is full needs the room
                draft.unlink()
            raise StateFileError(f"{self.path} cannot be written: {error.strerror}") from None
