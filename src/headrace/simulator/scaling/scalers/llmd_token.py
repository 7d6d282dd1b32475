"""llm-d's token-aware scaling: prompt tokens in flight and KV caches in use.

    V_P      = tokens of a step / TTFT of such a prompt at an idle replica
    seconds  = share * (TTFT target - mean prompt / V_P)              the guide: 60 to 70 % of it
    replicas = max(sum of waiting prompt tokens / V_P per replica of `seconds`,
                   sum of KV usage per replica of kv), by `hpa_metrics`
    HPA: up by one pod in 180 s, down by one in 300 s, window 300 s; KEDA polls every 15 s

Tokens in flight are those without a first token yet. Defaults share 0.65, kv 0.8. Source: llm-d's
guide on token-aware autoscaling with KEDA, whose example has 1.5 s for `seconds`.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.simulator.scaling.actuation import MEASURED, Policy
from headrace.simulator.scaling.hpa_metrics import per_replica
from headrace.simulator.scaling.reading import Reading
from headrace.simulator.scaling.settings import ScalingSimulation

BEHAVIOUR = replace(
    MEASURED,
    up_window_s=0.0,
    down_window_s=300.0,
    up=(Policy("pods", 1, 180),),
    down=(Policy("pods", 1, 300),),
)
LEAST_SECONDS = 0.05


class LlmdToken:
    """See the module."""

    def __init__(
        self,
        settings: ScalingSimulation,
        *,
        share: float = 0.65,
        kv: float = 0.8,
    ) -> None:
        self.behaviour = BEHAVIOUR
        self.period_s = settings.sync_s
        engine = settings.engine
        self.prefill_rate = engine.max_batched_tokens / engine.latency.prefill_s(
            engine.max_batched_tokens
        )
        """V_P, tokens a second."""
        self._ttft_s, self._share, self._kv = settings.slo.ttft_s, share, kv

    def wish(self, reading: Reading) -> int:
        """See the module."""
        own_s = reading.mix.input_tokens / self.prefill_rate
        seconds = max(self._share * (self._ttft_s - own_s), LEAST_SECONDS)
        waiting_s = reading.waiting_input_tokens / self.prefill_rate
        by_tokens = per_replica(waiting_s, seconds, reading.number)
        return max(by_tokens, per_replica(reading.kv_usage, self._kv, reading.number), 1)


SCALER = LlmdToken
SWEEP = {"share": (0.3, 0.65), "kv": (0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.8)}
