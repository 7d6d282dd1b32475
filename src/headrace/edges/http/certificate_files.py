"""The files behind certificates in use: when they are to be read, and what may take their place."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.edges.http.certificate_dates import dates_of


class TlsError(Exception):
    """Certificates that cannot be used; the message names the file and the remedy.

    `field` is the setting that names the file.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@contextmanager
def told_of(section: str) -> Iterator[None]:
    """Certificates that cannot be used are of that section of the configuration."""
    try:
        yield
    except TlsError as error:
        raise TlsError(f"{section}.{error.field}", str(error)) from None


class CertificateFiles:
    """Files as they were at one moment: to be made before they are read, so that what is written
    in between is met as a change the next time.
    """

    __slots__ = ("_cert_file", "_files", "_stamp", "dates")

    def __init__(self, cert_file: str | None, files: tuple[str, ...]) -> None:
        """`cert_file` is the one of `files` whose dates count; None without one."""
        self._cert_file = cert_file
        self._files = files
        self._stamp = _stamp(files)
        self.dates = dates_of(cert_file)

    def are_current(self) -> bool:
        """Whether none of them was written or replaced since, links followed."""
        return _stamp(self._files) == self._stamp

    def again(self) -> CertificateFiles:
        """The same files as they are now."""
        return CertificateFiles(self._cert_file, self._files)

    def differ_from(self, others: CertificateFiles) -> bool:
        """Whether others were read from there."""
        return self._stamp != others._stamp

    def may_replace(self, in_use: CertificateFiles) -> None:
        """Raises TlsError if their certificate does not hold now, and the one in use does: whoever
        renews certificates has made a mistake, and every client would pay for it.
        """
        now_s = time.time()
        if self.dates is None or in_use.dates is None or not in_use.dates.hold_at(now_s):
            return
        fault = self.dates.fault(now_s)
        if fault:
            raise TlsError("cert_file", f"is {self._cert_file!r}, whose certificate {fault}")


class CertificateWatch:
    """What is in use, and what was looked at last, which may not have been taken up."""

    __slots__ = ("_again_s", "_seen", "in_use")

    def __init__(self, files: CertificateFiles) -> None:
        self.in_use = self._seen = files
        self._again_s = math.inf

    def look(self) -> CertificateFiles | None:
        """Files that are to be read: they changed since the last look, or their certificate began
        to hold since. None if there is nothing new.
        """
        seen, now_s = self._seen, time.time()
        if seen.are_current() and now_s < self._again_s:
            return None
        seen = self._seen = seen.again()
        begins_s = -math.inf if seen.dates is None else seen.dates.begins_s
        self._again_s = begins_s if begins_s > now_s else math.inf
        return seen


def _stamp(files: tuple[str, ...]) -> tuple[object, ...]:
    """What is different after any of the files was written or replaced."""
    return tuple(_state(file) for file in files)


def _state(file: str) -> tuple[int, int, int] | None:
    try:
        state = Path(file).stat()
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size
