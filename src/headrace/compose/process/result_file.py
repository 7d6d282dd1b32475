"""Files that a command writes its results to, and what is said where that cannot be.

`refusal` is the command's own kind of error: it is raised with one line that names the file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
def writing(path: Path, refusal: type[Exception]) -> Iterator[Path]:
    """Around whatever writes the file, which writes to the path it is given: `path` is what it was
    until all is written, and stays so if a full disk or Ctrl-C comes between.
    """
    target = Path(os.path.realpath(path))
    draft = _draft_of(target)
    try:
        if draft is None:
            yield path
            return
        try:
            yield draft
            with suppress(FileNotFoundError):
                shutil.copymode(target, draft)
            draft.replace(target)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
    except OSError as error:
        raise refusal(f"{path}: cannot write: {error.strerror}") from None


def _draft_of(target: Path) -> Path | None:
    """Where to write first, beside the file; None for what must be written in place: a device, a
    pipe, or a file in a folder that takes no other.
    """
    # What is a link still leads in a circle.
    in_place = target.is_symlink() or (target.exists() and not target.is_file())
    if in_place or not os.access(target.parent, os.W_OK):
        return None
    return target.with_name(f".headrace-{os.getpid()}.new")
