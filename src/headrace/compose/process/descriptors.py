"""How many files and connections this process may have open at once."""

from __future__ import annotations

import resource
from collections.abc import Callable

WANTED = 65_536
"""As much as anybody needs; an unlimited hard limit would let a leak take the machine."""


def raise_soft_limit(
    max_connections: int, warn: Callable[[str], None], detail: Callable[[str], None]
) -> None:
    """Raise the soft limit of open files as far as the hard one allows, at most to `WANTED`.

    Warn if it is still too low for `max_connections` clients with one engine's connection each.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted_limit(soft, hard)
    if limit != soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (OSError, ValueError) as error:  # macOS has further limits of its own
            detail(f"open files: the limit stays at {soft}: {error}")
            limit = soft
        else:
            detail(f"open files: limit raised from {soft} to {limit}")
    if limit != resource.RLIM_INFINITY and 2 * max_connections > limit:
        warn(
            f"warning: limits.max_connections is {max_connections}, but only {limit} files can be "
            "open at once, and each request takes two; raise the limit (`ulimit -Hn`, LimitNOFILE) "
            f"or set limits.max_connections to {limit // 2}"
        )


def wanted_limit(soft: int, hard: int) -> int:
    """The soft limit to ask for, given the present ones; it is never lowered."""
    if soft == resource.RLIM_INFINITY:
        return soft
    ceiling = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    return max(soft, ceiling)
