"""From when to when a certificate holds, read out of its PEM file (RFC 5280, section 4.1).

The standard library tells these dates of a peer's certificate, but not of one's own.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PEM = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17
_FIRST_YEAR = 50
"""A year of two digits is of the last century from this one on."""


@dataclass(frozen=True, slots=True)
class Dates:
    """Seconds of the wall clock between which a certificate holds."""

    begins_s: float
    ends_s: float

    def hold_at(self, now_s: float) -> bool:
        """Whether it holds then."""
        return self.begins_s <= now_s <= self.ends_s

    def fault(self, now_s: float) -> str:
        """Why it does not hold then; "" if it does."""
        if now_s > self.ends_s:
            return f"expired at {_in_words(self.ends_s)}"
        return f"holds only from {_in_words(self.begins_s)} on" if now_s < self.begins_s else ""


def dates_of(cert_file: str | None) -> Dates | None:
    """Those of the first certificate in a file, which is the one that is shown; None where they
    cannot be read.
    """
    try:
        found = _PEM.search(Path(cert_file or "").read_text("ascii", "replace"))
        if found is None:
            return None
        der = ssl.PEM_cert_to_DER_cert(found[0])
        _, at, _ = _element(der, 0)  # the certificate
        _, at, _ = _element(der, at)  # what is signed of it
        tag, _, end = _element(der, at)
        at = end if tag == _VERSION else at
        for _ in ("serial number", "algorithm", "issuer"):
            _, _, at = _element(der, at)
        _, at, _ = _element(der, at)
        begins_s, at = _time(der, at)
        ends_s, _ = _time(der, at)
    except (OSError, ValueError, IndexError):
        return None
    return Dates(begins_s, ends_s)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of what stands there."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        digits = length & 0x7F
        length, at = int.from_bytes(der[at : at + digits], "big"), at + digits
    return tag, at, at + length


def _time(der: bytes, at: int) -> tuple[float, int]:
    """A time, and where the next element begins."""
    tag, start, end = _element(der, at)
    text = der[start:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= _FIRST_YEAR else "20") + text
    moment = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return moment.timestamp(), end


def _in_words(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
