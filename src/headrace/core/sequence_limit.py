"""How many sequences an engine runs side by side, learned where it does not tell.

vLLM tells no gateway its `--max-num-seqs`. It shows in scrapes while the limit is what requests
wait for, and other reasons to wait are ruled out one by one:

    most      = the most sequences that were seen running since the engine started
    waiting   > 0, and at least PATIENT_STEPS * running / answer tokens
                                          a place is free every running / answer steps: whoever
                                          waits for less came during the step in work
    KV cache  at most ROOMY in use, and room for HEADS sequences as large as those there
    full      = running = most, while these wait, there is room, and somebody got his first token
                since the scrape before   who leaves is replaced, and by one alone
    settled   = at one such scrape as many streams of this gateway decoded as `most`
                                          no prompt in work: the token budget of a step had room
    limit     = most, after SCRAPES full ones, settled SETTLED times

Where requests wait and fewer run than those that have ended since the scrape before can explain,
something else holds them back, and what was gathered is void. (vLLM counts when a step is over: who
ended with it has left, and nobody has come yet.) What was learned is forgotten when more are seen
running, so it never is below what was seen, and when the engine's counters start anew.

Replicas of a pool are interchangeable: what some have shown is believed of the others until more
run there, as long as those that have shown any limit agree. They are sent one request more than
that, which shows whether it is true there, too: who is never sent more never runs more, and an
engine that could would stay as small as the others for ever.

Inputs that are too low hide a limit and feign none: streams of other gateways, answers that are not
streamed and the other choices of a request are not among those seen to decode.
"""

from __future__ import annotations

from typing import Final

from headrace.core.model import EngineReport, Replica

SCRAPES: Final = 5
SETTLED: Final = 2
PATIENT_STEPS: Final = 4.0
"""A request waits for the end of a step, or two, before any engine looks at it."""
ROOMY: Final = 0.9
HEADS: Final = 2.0
"""The first in an engine's queue is admitted when there is room for all of its prompt."""
UNPROVEN_PLACES: Final = 1.0
"""Beyond a limit that only others have shown."""


class SequenceLimit:
    """What the scrapes of one replica have shown; `learned` is None until they show a limit."""

    __slots__ = (
        "_decoding",
        "_first_tokens",
        "_full",
        "_most",
        "_output_tokens",
        "_settled",
        "learned",
    )

    def __init__(self) -> None:
        self.learned: float | None = None
        self._most = 0.0
        self._full = self._settled = 0
        self._first_tokens = self._decoding = 0
        self._output_tokens = 0.0

    def observe(self, report: EngineReport, replica: Replica) -> None:
        """Take one scrape, and what this gateway has in flight there when it was told."""
        output_tokens = report.output_tokens_total
        if output_tokens is not None:
            if output_tokens < self._output_tokens:
                self._begin_again(0.0)
            self._output_tokens = output_tokens
        running = report.running
        if running is None:
            return
        if running > self._most:
            self._begin_again(running)
        waiting = report.waiting_for_room
        if waiting and _is_for_a_place(waiting, running, report, replica):
            self._weigh(running, replica)
        self._first_tokens, self._decoding = replica.prefills_done, replica.decoding

    def or_else(self, agreed: float | None) -> float | None:
        """What is learned, or else what the rest of its pool has shown, unless more ran here."""
        if self.learned is not None or agreed is None or agreed < self._most:
            return self.learned
        return agreed

    def _begin_again(self, most: float) -> None:
        self.learned = None
        self._most = most
        self._full = self._settled = 0

    def _weigh(self, running: float, replica: Replica) -> None:
        """Requests wait there, and not for room in the KV cache."""
        most, begun = self._most, replica.prefills_done - self._first_tokens
        if running < most:
            ended = begun - (replica.decoding - self._decoding)
            if most - running > max(1, ended):
                self._full = self._settled = 0
            return
        if not begun:
            return  # nothing has moved, so this is the scrape before once more
        self._full += 1
        self._settled += replica.decoding - replica.silent >= most
        if self._full >= SCRAPES and self._settled >= SETTLED:
            self.learned = most


def _is_for_a_place(waiting: float, running: float, report: EngineReport, replica: Replica) -> bool:
    """Whether those who wait have waited for some steps, and not for room in the KV cache."""
    usage, capacity = report.kv_usage_ratio, report.kv_capacity_tokens
    if usage is None or capacity is None or usage > ROOMY or not replica.in_flight:
        return False
    held_tokens = replica.context_tokens / replica.in_flight
    if (1.0 - usage) * capacity < HEADS * held_tokens:
        return False
    return waiting * replica.pool.output_tokens_mean >= PATIENT_STEPS * running
