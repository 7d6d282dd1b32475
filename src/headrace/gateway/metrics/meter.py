"""Measures one attempt while its answer is relayed."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from headrace.core.events import Progress
from headrace.core.model import Endpoint, Outcome, Usage
from headrace.core.usage_belief import output_can_be
from headrace.gateway.metrics.histogram import ITL_BOUNDS_S, Histogram
from headrace.gateway.metrics.series import Series
from headrace.gateway.metrics.tokens import ChunkRatio

_COMPLETED: Final = Outcome.COMPLETED
_NOTHING: Final = Usage()


class Meter:
    """One attempt: clock of its chunks, estimate of its tokens, settled when it ends.

    Made by `Telemetry.begin`. Of a chunk that passes as it comes only the time is noted, see
    `passed`; it is counted a few times a second, before anybody reads a figure.
    """

    __slots__ = (
        "_counted_tokens",
        "_endpoint",
        "_itl",
        "_itl_counts",
        "_passed",
        "_ratio",
        "_received_s",
        "_reported_tokens",
        "_sequences",
        "_series",
        "_streamed",
        "_usage_chunks",
        "_usage_tokens",
        "attempt",
        "chunks",
        "ended",
        "first_s",
        "input_tokens_estimate",
        "last_s",
        "reads_audio",
        "streams",
    )

    def __init__(  # noqa: PLR0917 - each request comes by here, and keywords cost
        self,
        series: Series,
        ratio: ChunkRatio,
        attempt: int,
        received_s: float,
        streamed: bool,
        endpoint: Endpoint,
        input_tokens_estimate: int,
        sequences: int,
    ) -> None:
        self.attempt = attempt
        self.chunks = 0
        self.first_s: float | None = None
        self.last_s = received_s
        self.ended = False
        self.reads_audio = False
        """Whether the answer is to an endpoint of which the engine may tell seconds, not tokens."""
        self.streams: dict[Meter, None] | None = None
        """The running streams, which it leaves at its end."""
        self._series = series
        self._ratio = ratio
        self._received_s = received_s
        self._streamed = streamed
        self._endpoint = endpoint
        self.input_tokens_estimate = input_tokens_estimate
        self._sequences = sequences
        # The tokens of several sequences come in between each other: their gaps are no ITL.
        self._itl = series.itl if sequences == 1 else Histogram(ITL_BOUNDS_S)
        self._itl_counts = self._itl.counts
        self._passed: list[float] | None = None
        self._counted_tokens = 0
        self._reported_tokens = 0
        self._usage_tokens = 0
        self._usage_chunks = 0

    def begin_stream(self) -> None:
        """The answer turned out to be a stream, though the request had not asked for one."""
        self._streamed = True

    def content(self, now: float, chunks: int = 1) -> None:
        """Non-empty content, reasoning or tool-call deltas were sent on.

        `chunks` is how many of them went out together: the client sees one gap before the first
        and none between the others, and so does the ITL histogram. The first call of a streamed
        request observes its TTFT. Calls for an answer that is not streamed are no-ops.
        """
        if self._passed:
            self._count_passed()
        if self.first_s is None:
            if not self._streamed:
                return
            self.first_s = now
            self._series.observe_ttft(now - self._received_s, now)
        else:
            gap_s = now - self.last_s
            self._itl_counts[bisect_left(ITL_BOUNDS_S, gap_s)] += 1
            self._itl.total += gap_s
        if chunks > 1:
            self._itl_counts[0] += chunks - 1
        self.last_s = now
        self.chunks += chunks

    def passed(self) -> list[float]:
        """Where to put the time of each chunk of content that is sent on after the first."""
        if self._passed is None:
            self._passed = []
        return self._passed

    def _count_passed(self) -> None:
        passed = self._passed
        if not passed:
            return
        self.last_s = self._itl.count_gaps(passed, self.last_s)
        self.chunks += len(passed)
        passed.clear()

    def nothing_sent(self) -> None:
        """The content that came never left: its tokens are those of the attempt that follows, and
        so is the TTFT. It came in the read that is under way, so nobody has looked since.
        """
        self.chunks = self._usage_tokens = self._usage_chunks = 0
        if self.first_s is not None:
            self._series.observe_ttft(self.first_s - self._received_s, self.first_s, times=-1)
            self.first_s = None

    @property
    def latest_s(self) -> float:
        """When content was sent on last."""
        return self._passed[-1] if self._passed else self.last_s

    def running_usage(self, output_tokens: int) -> None:
        """The engine said how many output tokens the chunks so far hold, this one included.

        Only streams whose client asked for continuous usage bring it. What an engine says before
        the first content (`message_start` of `/v1/messages`) is about no chunk and is not used, nor
        is what cannot be.
        """
        if self._passed:
            self._count_passed()
        if self.chunks and output_can_be(output_tokens, max_tokens=0, chunks=self.chunks):
            self._usage_tokens = output_tokens
            self._usage_chunks = self.chunks

    @property
    def estimated_output_tokens(self) -> int:
        """Output tokens relayed so far, rounded down."""
        if self._passed:
            self._count_passed()
        return self._usage_tokens + self._ratio.at_most(self.chunks - self._usage_chunks)

    def flush(self, now: float) -> None:
        """Count what was relayed since the last flush."""
        estimate = self.estimated_output_tokens
        if estimate > self._counted_tokens:
            self._series.count_output(estimate - self._counted_tokens, now)
            self._counted_tokens = estimate

    def take_progress(self) -> Progress | None:
        """What the core has not heard of yet, as of the last flush."""
        if self._counted_tokens <= self._reported_tokens:
            return None
        self._reported_tokens = self._counted_tokens
        return Progress(self.attempt, self._counted_tokens)

    def finish(
        self, outcome: Outcome, usage: Usage | None, now: float, *, retried: bool = False
    ) -> Usage:
        """The attempt is over: settle its tokens, observe its TPOT, count it under its outcome.

        `usage` is the engine's final count, None if it told none. `retried` says that another
        attempt follows: then this one is counted as a retry, so that each request ends once.
        Returns what is counted for it. Calling it again counts nothing.
        """
        if self.ended:
            return _NOTHING
        self.ended = True
        if self._passed:
            self._count_passed()
        if self.streams is not None:
            self.streams.pop(self, None)
        series = self._series
        series.in_flight -= 1
        if retried:
            series.retries[outcome] = series.retries.get(outcome, 0) + 1
        else:
            ending = (self._endpoint, outcome)
            series.requests[ending] = series.requests.get(ending, 0) + 1
        if self._streamed or usage is None or outcome is not _COMPLETED:
            counted = self._settle(outcome, usage, now)
        else:  # a whole answer and its engine's count, of which nothing was counted before
            counted = usage
            series.input_tokens += usage.input_tokens
            series.cached_tokens += usage.cached_tokens
            series.count_output(usage.output_tokens, now)
        if outcome is not _COMPLETED:
            series.aborted_output_tokens += counted.output_tokens
        elif usage is not None and self.chunks > 1:
            self._learn(usage.output_tokens, now)
        return counted

    def _settle(self, outcome: Outcome, usage: Usage | None, now: float) -> Usage:
        """Bring the counters to the final figures, and return them."""
        series = self._series
        relayed = self._usage_tokens + self._ratio.at_least(self.chunks - self._usage_chunks)
        if usage is None:
            # Once content came the prompt was read whole; before that nobody can tell.
            completed = outcome is Outcome.COMPLETED
            whole = completed and self._endpoint is not Endpoint.OTHER
            input_tokens = self.input_tokens_estimate if self.chunks or whole else 0
            output_tokens = relayed
            # Of other endpoints that are not known nobody can say that their answers have one.
            if whole or (completed and self.reads_audio):
                missing = series.usage_missing
                missing[self._endpoint] = missing.get(self._endpoint, 0) + 1
        else:
            input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
            if outcome is not Outcome.COMPLETED:
                output_tokens = max(output_tokens, relayed)
            series.cached_tokens += usage.cached_tokens
        series.input_tokens += input_tokens
        series.count_output(output_tokens - self._counted_tokens, now)
        self._counted_tokens = output_tokens
        if usage is None or output_tokens != usage.output_tokens:
            return Usage(input_tokens, output_tokens)
        return usage

    def _learn(self, output_tokens: int, now: float) -> None:
        """Observe TPOT = (last - first content)/(output tokens - 1); learn tokens per chunk.

        A stream that came in one chunk tells neither. Of several sequences each has its share of
        the tokens.
        """
        self._ratio.learn(self.chunks, output_tokens)
        each = output_tokens / self._sequences
        if each > 1 and self.first_s is not None:
            self._series.observe_tpot((self.last_s - self.first_s) / (each - 1), now)
