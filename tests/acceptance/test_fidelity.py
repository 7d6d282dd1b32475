"""What the simulator predicts is what emulated engines do under load behind the real gateway.

Both get the very same requests: the same arrivals, lengths and shared prefixes, live as text over
HTTP. Live the engines run at half speed (`--time-scale 0.5`) and every time is counted in their
seconds: a connection, a timer of the event loop and a busy machine add a few milliseconds that the
simulator has not, and those weigh half as much then. Prompts are long, so that what is compared is
prefill, queues, batches and caches.

Prefixes are known in the engine's own blocks of 16 tokens. In a trace with blocks of 512, the end
of a prompt behind its last block has no id: the simulator frees it at once, where an engine keeps
it until its room is needed, so that a little less of everything else fits.

Means scatter by themselves, since one choice changes those after it: in the simulator, arrivals
shifted by up to 4 ms move them here by 1 to 2 %, and with `seconds` rather up than down (of 24
draws from -0.1 to +5.4 %, as much as is allowed here; shifted by up to 2 ms from -0.2 to +1.5 %).
On a busy machine its TTFT was 1.3, 2.8 and 4.6 % above the simulator's. Answers are of similar
lengths for this reason: of one with two tokens, the whole TPOT is whether a prompt came in between.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from benchmarks.contenders import gateway_of_modelled, proxy
from benchmarks.engines import MODEL, modelled_engines
from benchmarks.trace_load import play, results_of
from headrace.engine_model.profiles import profile
from headrace.simulator.results import Scores, distribution, scores_of
from headrace.simulator.runs import run_policy
from headrace.simulator.settings import SimulationSettings
from headrace.simulator.workloads import FileWorkload
from headrace.traffic.generated import taken
from headrace.traffic.lengths import LognormalSeconds, LognormalTokens
from headrace.traffic.multi_turn import MultiTurn, multi_turn
from headrace.traffic.shape import sped_up
from headrace.traffic.trace import Trace

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

PROFILE = "h100-llama-3.1-8b"
TIME_SCALE = 0.5
REPLICAS = 4
REQUESTS = 300
REQUESTS_PER_S = 6.0
"""In the engines' time: prompts queue, and streams decode between the prefills of others."""
WITHIN = 0.05

SETTINGS = SimulationSettings(
    engine=profile(PROFILE),
    replicas=REPLICAS,
    # As the gateway does, whose scrapes and reports come at fixed times of the machine's clock.
    scrape_lag_s=0.0,
    scrape_period_s=1.0 * TIME_SCALE,
    progress_period_s=0.25 * TIME_SCALE,
)

LONG_TURNS = MultiTurn(
    system_tokens=LognormalTokens(2000, 0.4),
    message_tokens=LognormalTokens(3000, 1.5, most=60_000),
    answer_tokens=LognormalTokens(300, 0.5),
    pause=LognormalSeconds(10, 1.0),
    block_tokens=SETTINGS.engine.kv_block_tokens,
)
"""Prompts of 8,500 tokens; many begin as an earlier one did."""


@pytest.mark.parametrize("policy", ["round_robin", "seconds"])
def test_live_and_simulated_latencies_agree(policy: str, tmp_path: Path):
    turns = multi_turn(LONG_TURNS, requests_per_s=REQUESTS_PER_S, seed=1)
    trace = taken("long turns", LONG_TURNS.block_tokens, turns, REQUESTS)
    simulated = run_policy(SETTINGS, FileWorkload(trace), policy).scores
    live = live_scores(policy, trace, tmp_path)
    print(f"\n{policy}, {len(trace.requests)} requests")
    for name, scores in (("simulated", simulated), ("live", live)):
        print(
            f"{name:>9}: TTFT {scores.ttft_s.mean:.4f} s, TPOT {scores.tpot_s.mean * 1e3:.3f} ms,"
            f" hits {scores.hit_ratio:.4f}"
        )
    ttft_ratio = live.ttft_s.mean / simulated.ttft_s.mean
    tpot_ratio = live.tpot_s.mean / simulated.tpot_s.mean
    print(f"    ratio: TTFT {ttft_ratio:.4f}, TPOT {tpot_ratio:.4f}")
    assert live.completed == simulated.completed == len(trace.requests)
    assert ttft_ratio == pytest.approx(1.0, abs=WITHIN)
    assert tpot_ratio == pytest.approx(1.0, abs=WITHIN)


def live_scores(policy: str, trace: Trace, folder: Path) -> Scores:
    """The trace through gateway and engines, in the engines' seconds."""
    slo = SETTINGS.slo
    contender = gateway_of_modelled(
        SETTINGS.engine.latency, slo, time_scale=TIME_SCALE, policy=policy
    )
    with (
        modelled_engines(PROFILE, time_scale=TIME_SCALE, count=REPLICAS) as fleet,
        proxy(contender, fleet.urls, folder) as gateway,
    ):
        answers = uvloop.run(play(gateway.port, sped_up(trace, TIME_SCALE), model=MODEL))
    errors = [answer.error for answer in answers if answer.error]
    assert not errors, errors[:3]
    lag = distribution(answer.lag_s for answer in answers)
    print(f"\nrequests were sent late by {lag.mean * 1e3:.2f} ms (p99 {lag.p99 * 1e3:.2f} ms)")
    return scores_of(policy, results_of(answers, TIME_SCALE), slo)
