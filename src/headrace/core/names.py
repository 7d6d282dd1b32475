"""What pools and tiers may be called: their names are in metrics, headers and flags. And what is
said of a name that nothing has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME_RULE = "use at most 63 letters, digits or . _ - and begin with a letter or digit"


def misnamed(given: str, known: Iterable[str]) -> str:
    """`'rond_robin', did you mean 'round_robin'? known: least_requests, round_robin`."""
    names = list(known)
    near = get_close_matches(given, names, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ";"
    return f"{given!r}{hint} known: {', '.join(names)}"
