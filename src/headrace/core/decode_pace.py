"""How fast the streams of a replica decode, and how much KV cache they attend to, of late.

    step_s          seconds that streams were watched for / steps that they made
    context_tokens  their KV tokens, in the mean over time

Both are differences of a replica's totals between now and about a minute ago, so that it does not
matter how often somebody asks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from headrace.core.model import Replica

WINDOW_S = 60.0
MARK_EVERY_S = 5.0
FEWEST_STEPS = 20.0
"""With fewer a step is not told: they may be those of one stream that had to wait."""

_Mark: TypeAlias = tuple[float, float, float, float]
"""A time, and the totals then: seconds watched, steps made, KV tokens times seconds."""


class DecodePace:
    """Of one replica. `note` whenever somebody looks."""

    __slots__ = ("_marks", "_now")

    def __init__(self) -> None:
        self._marks: deque[_Mark] = deque()
        self._now: _Mark = (0.0, 0.0, 0.0, 0.0)

    def note(self, replica: Replica, now: float) -> None:
        """Take the totals as of now."""
        since_s = max(now - replica.marked_s, 0.0)
        attended = replica.context_token_seconds + replica.decoding_context_tokens * since_s
        self._now = mark = (now, replica.paced_s, replica.paced_steps, attended)
        marks = self._marks
        if marks and (mark[2] < marks[-1][2] or attended < marks[-1][3]):
            marks.clear()  # another replica of this name
        if not marks or now - marks[-1][0] >= MARK_EVERY_S:
            marks.append(mark)
        while len(marks) > 1 and marks[1][0] <= now - WINDOW_S:
            marks.popleft()

    @property
    def step_s(self) -> float | None:
        """Mean seconds of a step; None where too few were seen."""
        if not self._marks:
            return None
        steps = self._now[2] - self._marks[0][2]
        return (self._now[1] - self._marks[0][1]) / steps if steps >= FEWEST_STEPS else None

    @property
    def context_tokens(self) -> float | None:
        """Mean KV tokens of what decodes; None before there is a span of time."""
        if not self._marks or self._now[0] <= self._marks[0][0]:
            return None
        return (self._now[3] - self._marks[0][3]) / (self._now[0] - self._marks[0][0])
