"""How a run of `headrace bench` goes, while it goes: a few moving lines, or one line now and then.

12 s  failed 1 · sent 240 · running 18 · done 221
last 5 s: TTFT p50 61.0 ms p95 90.3 ms · TPOT p50 10.1 ms
          in 5,120 tok/s · out 2,540 tok/s · generator lag at most 0.4 ms
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rich.text import Text

from headrace.bench.figures.percentiles import percentile
from headrace.bench.sending.sender import Progress
from headrace.compose.process.terminal import Board, Terminal
from headrace.core.durations import in_words

RECENT_S = 5.0
"""What is shown of latencies is that of the last seconds."""
PLAIN_EVERY_S = 5.0
"""Without a terminal, a line comes this often."""


@dataclass(slots=True)
class _Moment:
    at_s: float
    progress: Progress


class BenchDisplay:
    """Shows progress on a board; `show` is what `measure` is given."""

    def __init__(self, board: Board, terminal: Terminal, planned: int) -> None:
        self._board = board
        self._terminal = terminal
        self._planned = planned
        self._recent: deque[_Moment] = deque()
        self._said_s = 0.0

    def show(self, passed_s: float, progress: Progress) -> None:
        """Takes in what all workers did so far."""
        recent = self._recent
        recent.append(_Moment(passed_s, progress))
        while len(recent) > 2 and recent[0].at_s < passed_s - RECENT_S:
            recent.popleft()
        if self._board.moves:
            self._board.show(Text("\n".join(self._lines(passed_s, progress))))
        elif passed_s - self._said_s >= PLAIN_EVERY_S:
            self._said_s = passed_s
            lines = map(str.strip, self._lines(passed_s, progress))
            self._terminal.status(" · ".join(lines))

    def _lines(self, passed_s: float, progress: Progress) -> tuple[str, ...]:
        """Each short enough for a terminal of 80 columns, which would cut it off."""
        first = self._recent[0]
        span_s = max(passed_s - first.at_s, 1e-3)
        tokens_in = (progress.input_tokens - first.progress.input_tokens) / span_s
        tokens_out = (progress.output_chunks - first.progress.output_chunks) / span_s
        sent = f"{progress.sent:,}" + (f" of {self._planned:,}" if self._planned else "")
        counts = f"sent {sent} · running {progress.running:,} · done {progress.done:,}"
        counts += f" · left {progress.left:,}" if progress.left else ""
        # A narrow terminal cuts a line off at its end, and of all counts this one must be seen.
        counts = f"failed {progress.failed:,} · {counts}" if progress.failed else counts
        flow = f"in {tokens_in:,.0f} tok/s · out {tokens_out:,.0f} tok/s"
        moments = [moment.progress for moment in self._recent]
        ttft_s = sorted(value for each in moments for value in each.ttft_s)
        tpot_s = sorted(value for each in moments for value in each.tpot_s)
        lag_s = max(each.max_lag_s for each in moments)
        ttft = f"TTFT p50 {_at(ttft_s, 0.5)} p95 {_at(ttft_s, 0.95)}"
        times = f"{ttft} · TPOT p50 {_at(tpot_s, 0.5)}"
        late = f"generator lag at most {in_words(lag_s)}"
        last = f"last {RECENT_S:.0f} s: "
        return (
            f"{max(passed_s, 0.0):.0f} s  {counts}",
            f"{last}{times}",
            f"{' ' * len(last)}{flow} · {late}",
        )


def _at(ranked_s: list[float], share: float) -> str:
    return in_words(percentile(ranked_s, share)) if ranked_s else "–"
