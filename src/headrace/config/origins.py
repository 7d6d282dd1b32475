"""Web origins as browsers write them: what is written otherwise is never met, without a word."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

EVERY = "*"
OF_NO_SITE = "null"
"""What browsers say of pages from files and in sandboxes."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")


def origin_problem(origin: str) -> str | None:
    """What is wrong with an origin that pages may have, or None."""
    if origin in {EVERY, OF_NO_SITE}:
        return None
    if EVERY in origin:
        return f"is {origin!r}; name each origin in full, or write '*' alone, for all"
    written = _as_browsers_write(origin)
    if written is None:
        return f"is {origin!r}; expected an origin as browsers send it, such as https://app.example"
    return None if written == origin else f"is {origin!r}; browsers write it {written!r}"


def _as_browsers_write(origin: str) -> str | None:
    """Scheme, host and port in lower case, without a default port or anything behind."""
    if not _SCHEME.match(origin.lower()):
        return None
    try:
        parts = urlsplit(origin)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode("ascii")
    except ValueError:  # UnicodeError too
        return None
    if not host or "@" in parts.netloc or any(letter.isspace() for letter in origin):
        return None
    host = f"[{host}]" if ":" in host else host
    is_default = port is None or port == _DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}" if is_default else f"{parts.scheme}://{host}:{port}"
