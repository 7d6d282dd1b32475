"""Files of text that a user names: as they are, or compressed with gzip."""

from __future__ import annotations

import errno
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_GZIP = b"\x1f\x8b"
"""What every such file begins with, whatever its name."""


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """The text of a file or pipe, in UTF-8.

    Raises:
        OSError: it cannot be read, also while it is; `strerror` says why.
    """
    with path.open("rb") as file:
        is_gzip = file.peek(len(_GZIP)).startswith(_GZIP)
        try:
            with io.TextIOWrapper(
                gzip.GzipFile(fileobj=file) if is_gzip else file, encoding="utf-8"
            ) as text:
                yield text
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise OSError(errno.EIO, "gzip: the file is damaged or not whole") from None
