"""The simplest timing source: every prompt takes the same time, however many there are."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.emulator.timing import Generation, Occupancy


@dataclass(frozen=True, slots=True)
class Script:
    """Seconds from a prompt to its first token, and from each token to the next."""

    ttft_s: float = 0.05
    itl_s: float = 0.01


class ScriptedTiming:
    """First tokens `ttft_s` after their prompt, the others `itl_s` apart.

    Both waits are constants, so a queue in order of arrival is in order of due time as well (but
    for the milliseconds by which one call comes late): two of them make a timer wheel in which a
    token costs the same with 1 stream or 10,000.
    """

    def __init__(self, script: Script, *, kv_capacity_tokens: int) -> None:
        self._script = script
        self._kv_capacity_tokens = kv_capacity_tokens
        self._prefilling: deque[tuple[float, Generation]] = deque()
        self._decoding: deque[tuple[float, Generation]] = deque()
        self._running: set[Generation] = set()
        self._looked_up = 0

    def submit(self, generation: Generation, now: float) -> None:
        """See `TimingSource.submit`."""
        self._running.add(generation)
        self._looked_up += generation.prompt_tokens
        self._prefilling.append((now + self._script.ttft_s, generation))

    def cancel(self, generation: Generation) -> None:
        """See `TimingSource.cancel`; its place in the wheel is skipped when its time comes."""
        self._running.discard(generation)

    def wake_s(self) -> float:
        """See `TimingSource.wake_s`."""
        first = self._prefilling[0][0] if self._prefilling else math.inf
        following = self._decoding[0][0] if self._decoding else math.inf
        return min(first, following)

    def advance(self, now: float) -> Sequence[Generation]:
        """See `TimingSource.advance`."""
        due: list[Generation] = []
        # Decoding first, so that a first token due now gets no second one in the same call.
        for wheel in (self._decoding, self._prefilling):
            self._turn(wheel, now, due)
        return due

    def forget(self) -> None:
        """See `TimingSource.forget`; nothing is ever cached."""

    def occupancy(self) -> Occupancy:
        """See `TimingSource.occupancy`. Nothing ever waits; KV is what prompts and answers hold."""
        tokens = sum(each.prompt_tokens + each.produced for each in self._running)
        ratio = min(1.0, tokens / self._kv_capacity_tokens)
        return Occupancy(waiting=0, running=len(self._running), kv_usage_ratio=ratio)

    def looked_up(self) -> tuple[int, int]:
        """See `TimingSource.looked_up`; nothing is ever found."""
        return self._looked_up, 0

    def _turn(
        self, wheel: deque[tuple[float, Generation]], now: float, due: list[Generation]
    ) -> None:
        itl_s, running, decoding = self._script.itl_s, self._running, self._decoding
        # No more than are there now: with `itl_s` 0 the next token is due at once, but not in
        # this call.
        for _ in range(len(wheel)):
            at_s, generation = wheel[0]
            if at_s > now:
                return
            wheel.popleft()
            if generation not in running:
                continue
            generation.produced += 1
            due.append(generation)
            if generation.produced < generation.output_tokens:
                # From when it was due, so that lateness does not add up; but no engine makes up
                # for a stall by a burst.
                decoding.append((max(at_s + itl_s, now), generation))
            else:
                running.remove(generation)
