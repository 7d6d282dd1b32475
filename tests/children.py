"""Child processes that the code under test starts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest


def spawned_pids(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that asyncio spawns from now on, as they come."""
    pids: list[int] = []
    spawn = asyncio.create_subprocess_exec

    async def remember(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        process = await spawn(*arguments, **options)
        pids.append(process.pid)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", remember)
    return pids
