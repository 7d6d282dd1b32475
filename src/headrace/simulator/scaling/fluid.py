"""A pool as a fluid: requests are a quantity, and weeks take seconds.

Per tick of dt seconds, with R ready replicas that share alike, S running sequences, b = S/R, the
costs of the tick's `RequestMix`, a prompts admitted a second and replica:

    steps/s n   = (1 - a * prefill_s) / (per_step + sequence_step_s * b)            TPOT = 1/n
    dS/dt       = a * R - S * n / E[answer]                   solved for the tick, n held
    a           limited by the token budget of a step, and so that b <= most_sequences
    who is not admitted waits, first come first served

Of what is admitted, the share with its TTFT in time is

    P(wait + 1.5 steps + prefill + W <= target),  W: wait behind other prompts, exponential tail
        P(W > x) = r * exp(-x/t),  r = a * E[v],  t = E[v²] / (2 E[v] (1 - r))           (M/G/1)
        v = prefill_s * (1 + decoding that goes on in its steps), QUEUE_SHARE of t since a router
        sends prompts where the queue is short

and of what ends, the share with its TPOT in time is, over the points of the answers' lengths o,

    Φ((target - m) / sd),   m the mean TPOT of the last life of a request
    sd² = PREFILL_NOISE * a * E[w²] * m / (o * (1 - a E[w])²)         prompts that came in between
        + BATCH_NOISE * b * (sequence_step_s / (1 - a E[w]))²          uneven batches

The constants were set once against the event mode (docs/reference/scaling-results.md); that all
replicas are alike is the fluid's assumption, and bursts shorter than a tick are in these terms.
"""

from __future__ import annotations

from array import array
from collections import deque
from math import erf, exp, log, sqrt
from typing import Protocol

from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.mix import RequestMix
from headrace.simulator.scaling.reading import Totals
from headrace.simulator.scaling.settings import ScalingSimulation

PREFILL_NOISE = 1.5
BATCH_NOISE = 1.0
QUEUE_SHARE = 1.0
SMOOTHED_S = 10.0
"""Over which the rate of prompts is averaged for what it does to others: a single tick is a burst
that the fluid already shows."""
STEPS_TO_FIRST_TOKEN = 1.5
"""Half a step until one begins, and the step itself."""
CERTAIN = 4.5
"""Standard deviations beyond which nothing misses."""
_ROOT_HALF = sqrt(0.5)


class Costs(Protocol):
    """What the engines' step needs to know of the requests: those of a `RequestMix`, or others."""

    input_tokens: float
    output_tokens: float
    prefill_s: float
    prefill_sq: float
    inverse_answer: float
    sequence_step_s: float
    most_sequences: float


class FluidPool:
    """The pool's state; `advance` plays ticks with a number of ready replicas.

    By tick it keeps `met_of` and `missed_of`: requests that ended there. What is measured since
    `begin_window`: see `reading`.
    """

    def __init__(self, settings: ScalingSimulation, demand: Demand) -> None:
        self.demand = demand
        self.totals = Totals()
        self.met = self.met_tokens = self.tokens = 0.0
        self.misses_of = array("d", bytes(8 * demand.ticks))
        self._latency = settings.engine.latency
        self._budget = settings.engine.max_batched_tokens
        self._kv_capacity = settings.engine.kv_capacity_tokens
        self._ttft_s, self._tpot_s = settings.slo.ttft_s, settings.slo.tpot_s
        self.running = 0.0
        self._in_time = 0.0  # of the running ones, those whose first token came in time
        self._waiting: deque[list[float]] = deque()  # [requests, arrived_s], oldest first
        self.waiting = 0.0
        self.tpot_s = self._latency.per_step_s
        self._mean_tpot_s = self.tpot_s
        self._spread_s = 0.0
        self._prompt_noise = self._batch_noise = 0.0
        self._prompts_per_s = 0.0  # per replica, smoothed
        self._smoothing = 1.0 - exp(-demand.tick_s / SMOOTHED_S)
        self.ttft_p90_s = 0.0
        self.output_tokens = 0.0

    @property
    def tpot_p90_s(self) -> float:
        """Of requests that end now."""
        return self._mean_tpot_s + 1.28 * self._spread_s

    @property
    def tpot_mean_s(self) -> float:
        """Of requests that end now."""
        return self._mean_tpot_s

    def kv_usage(self, mix: RequestMix) -> float:
        """The KV caches that running sequences fill, in replicas."""
        return self.running * mix.context_tokens / self._kv_capacity

    def waiting_input_tokens(self, mix: RequestMix, requests_per_s: float) -> float:
        """Prompt tokens without a first token: waiting ones and those in prefill."""
        prefilling = requests_per_s * (STEPS_TO_FIRST_TOKEN * self.tpot_s + mix.prefill_s)
        return (self.waiting + prefilling) * mix.input_tokens

    def held(self) -> tuple[float, float]:
        """Requests that the gateway says it holds, and their prompt tokens."""
        return 0.0, 0.0

    def advance(self, first: int, last: int, ready: int) -> None:
        """Play the ticks from `first` up to `last`, without it, with `ready` replicas."""
        demand, totals, dt = self.demand, self.totals, self.demand.tick_s
        for tick in range(first, last):
            mix = demand.mixes[demand.mix_of[tick]]
            came = demand.requests[tick]
            totals.requests += came
            totals.input_tokens += came * mix.input_tokens
            if ready:
                self._serve(tick, mix, came, demand.work_factor[tick], ready)
            elif came:
                self._waiting.append([came, tick * dt])
                self.waiting += came

    def finish(self, ready: int, limit_s: float = 3600.0) -> None:
        """Play on without arrivals until all that came has ended."""
        last = self.demand.ticks - 1
        mix, dt = self.demand.mix(last), self.demand.tick_s
        for _ in range(int(limit_s / dt)):
            if self.running + self.waiting < 0.01 or not ready:
                break
            self._serve(last, mix, 0.0, 1.0, ready)
        self.tokens += self._left_tokens(mix)

    def _left_tokens(self, mix: RequestMix) -> float:
        """Of those that have not ended."""
        return (self.running + self.waiting) * (mix.input_tokens + mix.output_tokens)

    def drain(self, leaving: int, ready_before: int, mix: RequestMix) -> float:
        """Take out `leaving` of the ready replicas with what runs there; seconds until it has
        ended.
        """
        if not ready_before:
            return 0.0
        share = leaving / ready_before
        sequences = self.running * share
        if sequences <= 0.0:
            return 0.0
        self._end(-1, mix, sequences, sequences / self.running)
        self.running -= sequences
        # The longest answer of those that run there is what a drain waits for.
        return mix.answers[-1][1] * self._mean_tpot_s if sequences >= leaving * 0.5 else 1.0

    # ---- one tick

    def _serve(
        self, tick: int, mix: RequestMix, came: float, work_factor: float, ready: int
    ) -> None:
        before, wanted = self.running, self.waiting + came
        count, after, step_s = self._step(mix, mix.prefill_s * work_factor, wanted, ready)
        there = before + count
        ended = there - after
        self.output_tokens += ended * mix.output_tokens
        self._admit(tick, mix, came, count, step_s)
        if ended > 0.0:
            self._end(tick, mix, ended, ended / there)
        self.running = after

    def _step(
        self, costs: Costs, prefill_s: float, wanted: float, ready: int
    ) -> tuple[float, float, float]:
        """One tick of the engines: how many of the `wanted` requests they take in, how many run
        at its end, and how long a step without prompts is. `prefill_s` is that of this tick.
        """
        dt, latency = self.demand.tick_s, self._latency
        answer, per_sequence_s = costs.output_tokens, costs.sequence_step_s
        batch = self.running / ready
        step_s = latency.per_step_s + per_sequence_s * batch
        # A step's tokens beside the decoding ones are all that prompts can have.
        budget = max(self._budget - batch, 1.0)
        full_step_s = step_s + budget * prefill_s / costs.input_tokens
        slowest = step_s / full_step_s
        admitted = min(wanted / (dt * ready), budget / (costs.input_tokens * full_step_s))
        # Half of an implicit step shows the batch that the tick is about.
        rate = max(1.0 - admitted * prefill_s, slowest) / step_s / answer
        middle = (batch + admitted * dt / 2) / (1.0 + rate * dt / 2)
        step_s = latency.per_step_s + per_sequence_s * min(middle, costs.most_sequences)
        steps_per_s = max(1.0 - admitted * prefill_s, slowest) / step_s
        rate = steps_per_s / answer
        kept = exp(-rate * dt)
        after = batch * kept + admitted / rate * (1.0 - kept)
        if after > costs.most_sequences:
            # As many come in as end: n = (1 - a * prefill_s) / step with a = b * n / answer.
            most = costs.most_sequences
            gap = (most - batch) / dt
            steps_per_s = max(1.0 - gap * prefill_s, slowest) / (step_s + prefill_s * most / answer)
            admitted = min(admitted, max(gap + most * steps_per_s / answer, 0.0))
            rate = steps_per_s / answer
            after = most if admitted > 0.0 else batch * exp(-rate * dt)
        self.tpot_s = 1.0 / steps_per_s
        self._remember_tpot(costs, admitted, (batch + after) / 2, dt)
        return min(admitted * ready * dt, wanted), after * ready, step_s

    def _remember_tpot(self, mix: Costs, admitted: float, batch: float, dt: float) -> None:
        """The mean TPOT of requests that end now, and the spread between them."""
        # Steps add up, not seconds per step: a request has its tokens after so many steps.
        rate = 1.0 / self._mean_tpot_s
        rate += (1.0 / self.tpot_s - rate) * (1.0 - exp(-dt * rate / mix.output_tokens))
        self._mean_tpot_s = mean_s = 1.0 / rate
        smooth = self._prompts_per_s
        smooth += (admitted - smooth) * self._smoothing
        self._prompts_per_s = smooth
        free = max(1.0 - smooth * mix.prefill_s, 0.05)
        prompts = PREFILL_NOISE * smooth * mix.prefill_sq * mean_s / (free * free)
        uneven = mix.sequence_step_s / free
        self._prompt_noise = prompts
        self._batch_noise = BATCH_NOISE * batch * uneven * uneven
        self._spread_s = sqrt(prompts * mix.inverse_answer + self._batch_noise)

    def _end(self, tick: int, mix: RequestMix, ended: float, share: float) -> None:
        """`ended` requests, `share` of the running ones, have their last token."""
        requests_share, tokens_share = self._in_time_by_tpot(mix)
        in_time = self._in_time * share
        self._in_time -= in_time
        met = in_time * requests_share
        tokens = mix.input_tokens + mix.output_tokens
        self.tokens += ended * tokens
        self.met_tokens += in_time * tokens_share * tokens
        self._judge(tick, ended, in_time, met, requests_share)

    def _judge(
        self, tick: int, ended: float, in_time: float, met: float, requests_share: float
    ) -> None:
        """Of those that ended, `in_time` had their first token so, `met` both targets."""
        self.met += met
        totals = self.totals
        totals.judged += ended
        totals.tpot_misses += ended * (1.0 - requests_share)
        totals.ttft_misses += max(ended - in_time, 0.0)
        self.misses_of[tick] += max(ended - met, 0.0)

    def _in_time_by_tpot(self, mix: RequestMix) -> tuple[float, float]:
        """Of what ends now, the share with its TPOT in time: of requests, and of their tokens."""
        gap_s = self._tpot_s - self._mean_tpot_s
        shortest = mix.answers[0][1]
        if gap_s > CERTAIN * sqrt(self._tpot_variance(shortest)):
            return 1.0, 1.0
        requests = tokens = 0.0
        for weight, answer, weighed in mix.tpot_points:
            spread_s = sqrt(self._tpot_variance(answer))
            if spread_s > 0.0:
                share = 0.5 + 0.5 * erf(gap_s / spread_s * _ROOT_HALF)
            else:
                share = 1.0 if gap_s >= 0.0 else 0.0
            requests += weight * share
            tokens += weighed * share
        return requests, tokens / (mix.input_tokens + mix.output_tokens)

    def _tpot_variance(self, answer: float) -> float:
        """Of the TPOT of answers of this length that end now."""
        return self._prompt_noise / answer + self._batch_noise

    def _admit(self, tick: int, mix: RequestMix, came: float, count: float, step_s: float) -> None:
        """The oldest `count` of those that wait, of whom `came` are new, get their first tokens."""
        ratio, mean_s = tail = self._prefill_wait(mix, self._prompts_per_s, step_s)
        behind_s = mean_s * log(ratio / 0.1) if ratio > 0.1 else 0.0
        own_s = STEPS_TO_FIRST_TOKEN * self._mean_tpot_s + mix.prompt_p90_s
        waiting, longest_s = self._waiting, 0.0
        if not waiting and count >= came:
            self._in_time += count * self._ttft_share(mix, 0.0, tail)
        else:
            longest_s = self._admit_oldest(tick, mix, came, count, tail)
        self.ttft_p90_s = longest_s + own_s + behind_s

    def _admit_oldest(
        self, tick: int, mix: RequestMix, came: float, count: float, tail: tuple[float, float]
    ) -> float:
        """As `_admit` where some wait; the longest wait of those let in."""
        waiting, left, longest_s = self._waiting, count, 0.0
        now = tick * self.demand.tick_s
        if came:
            waiting.append([came, now])
        while left > 1e-9 and waiting:
            oldest = waiting[0]
            taken = min(oldest[0], left)
            wait_s = now - oldest[1]
            self._in_time += taken * self._ttft_share(mix, wait_s, tail)
            longest_s = max(longest_s, wait_s)
            left -= taken
            if oldest[0] - taken <= 1e-9:
                waiting.popleft()
            else:
                oldest[0] -= taken
        self.waiting = max(self.waiting + came - count, 0.0) if waiting else 0.0
        return longest_s

    def _prefill_wait(self, mix: RequestMix, admitted: float, step_s: float) -> tuple[float, float]:
        """(share that waits for other prompts, mean seconds of these)."""
        slower = 1.0 + step_s * mix.input_tokens / (self._budget * mix.prefill_s)
        ratio = min(admitted * mix.prefill_s * slower, 0.99)
        mean_s = QUEUE_SHARE * mix.prefill_sq * slower / (2.0 * mix.prefill_s * (1.0 - ratio))
        return ratio, mean_s

    def _ttft_share(self, mix: RequestMix, wait_s: float, tail: tuple[float, float]) -> float:
        slack_s = self._ttft_s - wait_s - STEPS_TO_FIRST_TOKEN * self._mean_tpot_s
        if slack_s <= 0.0:
            return 0.0
        ratio, mean_s = tail
        longest_s = mix.prompts[-1][1]
        if slack_s - longest_s > 8.0 * mean_s:
            return 1.0
        share = 0.0
        for weight, prompt_s in mix.prompts:
            left_s = slack_s - prompt_s
            if left_s > 0.0:
                share += weight * (1.0 - ratio * exp(-left_s / mean_s))
        return share
