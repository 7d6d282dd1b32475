"""llm-d's SLO-aware law: as many replicas as bring latency to a share of its target.

    s = mean over 45 s of min(max(p90 TTFT / TTFT target, p90 TPOT / TPOT target), 2)
    c = ready / ordered, 1 if none is ready: replicas that start are counted on
    s > up:    n + ceil(n * (s * c / up - 1)), never fewer than n
    s < down:  n - floor(n * (1 - s / down)), never fewer than 1: none would have no latency
    HPA: up by 100 % or 4 pods a minute, window 30 s; down by one pod in two minutes, window 180 s

The formula's number is published with a target of 1 per replica, so the tolerance is for it.
Defaults up 0.55, down 0.40. Source: llm-d's guide `workload-autoscaling/slo-aware`; it claims
95.8 % attainment at 5.93 replicas on a ramp of 2 to 10 to 1 requests/s.
"""

from __future__ import annotations

from collections import deque
from math import ceil, floor

from headrace.simulator.scaling.actuation import Behaviour, Policy
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.settings import ScalingSimulation

WINDOW_S = 45.0
WORST = 2.0
BEHAVIOUR = Behaviour(
    up_window_s=30.0,
    down_window_s=180.0,
    up=(Policy("percent", 100, 60), Policy("pods", 4, 60)),
    down=(Policy("pods", 1, 120),),
)


class LlmdSlo:
    """See the module."""

    def __init__(
        self,
        settings: ScalingSimulation,
        *,
        up: float = 0.55,
        down: float = 0.40,
    ) -> None:
        self.behaviour = BEHAVIOUR
        self.period_s = settings.sync_s
        self._slo = settings.slo
        self._up, self._down = up, down
        self._seen: deque[tuple[float, float]] = deque()

    def wish(self, reading: Reading) -> int:
        """See the module."""
        slo, now = self._slo, reading.now
        ratio = max(reading.ttft_p90_s / slo.ttft_s, reading.tpot_p90_s / slo.tpot_s)
        self._seen.append((now, min(ratio, WORST)))
        while self._seen[0][0] <= now - WINDOW_S:
            self._seen.popleft()
        s = sum(value for _, value in self._seen) / len(self._seen)
        return law(s, reading.number, reading.ready, self._up, self._down)


def law(s: float, number: int, ready: int, up: float, down: float) -> int:
    """The wish at `s`, with `number` ordered of which `ready` serve."""
    if s > up:
        c = ready / number if 0 < ready < number else 1.0
        return max(number + ceil(number * (s * c / up - 1.0) - 1e-9), number, 1)
    if s < down:
        return max(number - floor(number * (1.0 - s / down) + 1e-9), 1)
    return number


SCALER = LlmdSlo
SWEEP = {"up": (0.45, 0.55, 0.65, 0.75, 0.85), "down": (0.3, 0.4, 0.5, 0.6)}
