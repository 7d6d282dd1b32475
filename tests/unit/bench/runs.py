"""Plays loads in the test's own process, against whatever listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from headrace.bench.endpoint.target import Target
from headrace.bench.record import Record
from headrace.bench.sending.sender import Sender
from headrace.bench.settings import BenchSettings
from headrace.traffic.arrival_plan import Arrivals, Process
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Extras, Load
from headrace.traffic.texts import Sizing

HANG_S = 60.0


def target_at(url: str, **settings: Any) -> Target:
    """An endpoint on this machine whose prompts are sized by words."""
    given = BenchSettings(url, **settings)
    return Target(given, "m", url, "", "127.0.0.1", Sizing())


def load_of(requests: int, *, rate: float = 200.0, lengths: str = "16/4", **extras: Any) -> Load:
    """So many requests at a constant rate."""
    arrivals = Arrivals.at(rate, Process("constant"))
    mix = parse_lengths(lengths)
    return Load.drawn(arrivals, mix, seed=1, requests=requests, extras=Extras(**extras))


async def play(
    url: str, load: Load, during: Callable[[Sender], Any] | None = None, **settings: Any
) -> list[Record]:
    """The records of a whole run, in order of the plan."""
    sender = Sender(target_at(url, **settings), load, worker=0, workers=1)
    running = asyncio.ensure_future(sender.run(time.monotonic()))
    async with asyncio.timeout(HANG_S):
        if during is not None:
            await during(sender)
        await running
    return sorted(sender.records, key=lambda record: record.index)
