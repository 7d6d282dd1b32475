"""An HPA on CPU, the default of many charts. A GPU's work does not show there.

    busy cores of a replica = 1 if anything runs + CPU_PER_REQUEST_S * requests/s
                              + CPU_PER_TOKEN_S * output tokens/s
    replicas = those that bring busy cores / REQUESTED_CORES to the target, by `hpa_metrics`

An engine's scheduler polls the GPU: one core is busy whether one request runs or two hundred. On
top of it comes work for requests and streamed tokens, so CPU follows requests/s and knows nothing
of prompts. The figures are estimates for an API server with its tokeniser, not measurements; others
move the threshold that is right, not the blindness.
Default target 0.7.
"""

from __future__ import annotations

from headrace.simulator.scaling.actuation import MEASURED
from headrace.simulator.scaling.hpa_metrics import by_utilisation
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.settings import ScalingSimulation

REQUESTED_CORES = 8.0
POLLING_CORES = 1.0
CPU_PER_REQUEST_S = 0.005
CPU_PER_TOKEN_S = 50e-6


class HpaCpu:
    """See the module."""

    def __init__(
        self,
        settings: ScalingSimulation,
        *,
        target: float = 0.7,
    ) -> None:
        self.behaviour = MEASURED
        self.period_s = settings.sync_s
        self._target = target

    def wish(self, reading: Reading) -> int:
        """See the module."""
        polling = POLLING_CORES * min(reading.running, reading.ready)
        busy = polling + CPU_PER_REQUEST_S * reading.requests_per_s
        busy += CPU_PER_TOKEN_S * reading.output_tokens_per_s
        proposed = by_utilisation(
            busy, REQUESTED_CORES, self._target, ready=reading.ready, ordered=reading.number
        )
        return max(proposed, 1)


SCALER = HpaCpu
SWEEP = {"target": (0.13, 0.14, 0.15, 0.16, 0.17, 0.18, 0.19, 0.2, 0.22, 0.25, 0.7)}
