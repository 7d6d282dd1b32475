"""Waiting for what nothing tells of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

HANG_S = 20.0
LOOK_S = 0.01


async def until(true: Callable[[], object], *, hang_s: float = HANG_S) -> None:
    """Until it is true; TimeoutError where it does not become so."""
    async with asyncio.timeout(hang_s):
        while not true():
            await asyncio.sleep(LOOK_S)
