"""Files that a command writes its results to, and what is said where that cannot be.

`refusal` is the command's own kind of error: it is raised with one line that names the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_writable(path: Path, refusal: type[Exception]) -> None:
    """Refuse a file that cannot be written now rather than after a long run."""
    if not path.parent.is_dir():
        raise refusal(f"{path}: cannot write: {path.parent} is no directory")
    if path.is_dir():
        raise refusal(f"{path}: cannot write: it is a directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise refusal(f"{path}: cannot write: permission denied")


@contextmanager
def writing(path: Path, refusal: type[Exception]) -> Iterator[None]:
    """Around whatever writes the file: a full disk, say, is refused as well."""
    try:
        yield
    except OSError as error:
        raise refusal(f"{path}: cannot write: {error.strerror}") from None
