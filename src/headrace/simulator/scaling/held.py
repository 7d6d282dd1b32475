"""A pool as a fluid behind a gateway that holds what cannot be served in time: `seconds`.

As `fluid`, but what comes waits at the gateway, in two parts. Per tick, with R replicas of batch b,
A the mean answer, w the prefill of a request, c what it adds to a step, and TPOT* what streams are
let come to:

    let in     as much as keeps the TPOT that the gateway sees at TPOT* or below, and as there are
               streams free (a batch is full, or the KV cache):
                   sum of (TPOT* (1 - k) w + c dt / 2D)
                       <= R dt (TPOT* (1 - k busy) - per_step - c b / D)
                   D = 1 + dt / (2 TPOT* A),  k = exp(-dt / RECENT_S)
    TPOT*      TPOT target * (BEFORE + HASTE * excess), excess: the share of work beyond capacity;
               in an overload that lasts, * (AT_ONCE + DECODING * share of time not in prefills)
    in time    waits with the others, at most for (1 - EARLY) TTFT target - w
    late       what is more than that. Where TPOT is what is short: of what came, the longest
               prompts, since these do most harm; where streams are: a part of all alike. It goes
               behind those in time, but for STARVED_SHARE of what is let in once the oldest has
               waited for STARVED_S
    noise      sd of TPOT = PROMPTS_OFF * sqrt(E[w^2]) / (answer * share of time not in prefills)
               as far as the gateway measures out what comes (`METERED_FROM`), for it sends a prompt
               when there is room instead of when it comes

so only what exceeds capacity is late, and where TPOT is what is short, these are fewer requests
than their share of the work. Who is let in in time waits for no other prompts at the replica.

OVERDUE, EARLY, STARVED_SHARE, STARVED_S and RECENT_S are the gateway's own. The other constants
were set once against the event mode, h100-llama-3.1-8b (docs/reference/scaling-results.md).
"""

from __future__ import annotations

from collections import deque
from math import exp, log, sqrt

from headrace.core.admission import AdmissionSettings
from headrace.core.held_queue import EARLY, OVERDUE, STARVED_SHARE
from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.fluid import STEPS_TO_FIRST_TOKEN, Costs, FluidPool
from headrace.simulator.scaling.held_load import Load, LongestFirst
from headrace.simulator.scaling.mix import RequestMix
from headrace.simulator.scaling.settings import ScalingSimulation

BEFORE, HASTE = 0.9, 0.4
"""Of the TPOT target, what streams come to before an overload counts as one that lasts, and how
much more where all that comes is beyond capacity: each alone does little harm."""
AT_ONCE, DECODING = 0.61, 0.7
"""Of the TPOT target, what streams come to in one that lasts, and how much more by the share of
time that is not spent on prefills: what decoding takes grows after requests are let in."""
LASTING = 1.5
"""Of OVERDUE: the first ones that wait are sent one by one all the same, as their patience ends."""
PROMPTS_OFF = 2.0
"""So many prompts more or fewer than its part a stream meets where they are measured out."""
LAST_MOMENT = 0.6
"""Of those sent when they can just be in time, how many are: so it is where streams are what is
short, whose ends nobody can foretell, until an overload lasts and EARLY leaves more."""
METERED_FROM = 0.5
"""Of what it would let in: the gateway measures out what comes within a tick from here on, fully
where all of it is used."""
STARVED_S = AdmissionSettings().starved_after_s
RECENT_S = 5.0
"""Over which the gateway sees how busy prefills keep a replica."""
LATE_SHOWN = 0.1
"""Of those with a first token, the share of late ones above which the 90th percentile is theirs."""
LEAST_TPOT = 1.05
"""Times the step of an empty engine."""
_NONE_WAIT = (0.0, 1.0)
_LEAST = 1e-9


class _Now:
    """What the engines' step needs to know of this tick, as a `RequestMix` has it."""

    __slots__ = (
        "input_tokens",
        "inverse_answer",
        "most_sequences",
        "output_tokens",
        "prefill_s",
        "prefill_sq",
        "sequence_step_s",
    )

    def __init__(self, mix: RequestMix, let_in: Load, running: Load) -> None:
        self.input_tokens, self.output_tokens = mix.input_tokens, mix.output_tokens
        self.prefill_s, self.prefill_sq = mix.prefill_s, mix.prefill_sq
        self.sequence_step_s, self.most_sequences = mix.sequence_step_s, mix.most_sequences
        self.inverse_answer = mix.inverse_answer
        count = let_in.requests
        if count > _LEAST:
            self.input_tokens = let_in.input_tokens / count
            self.prefill_s, self.prefill_sq = let_in.prefill_s / count, let_in.prefill_sq / count
        if running.requests + count > _LEAST:
            # Per sequence and step: what it adds to all of its steps, over how many these are.
            answers = running.output_tokens + let_in.output_tokens
            self.sequence_step_s = (running.step_s + let_in.step_s) / answers
            self.output_tokens = answers / (running.requests + count)


class _Room:
    """What the gateway lets in, in one tick: seconds of TPOT, and streams."""

    __slots__ = ("_budget_s", "_each_step", "_per_prefill", "_streams", "_waiting_most",
                 "_waiting_s", "used", "work_per_s")  # fmt: skip

    def __init__(
        self,
        mix: RequestMix,
        runs: Load,
        *,
        ready: int,
        dt: float,
        per_step_s: float,
        tpot_s: float,
        work_factor: float,
        now_s: float,
        bridged_s: float,
        busy: float,
    ) -> None:
        answer = mix.output_tokens
        batch = runs.requests / ready
        sequence_step_s = runs.step_s / runs.output_tokens if runs.requests > _LEAST else 0.0
        stretched = 1.0 + dt / (2.0 * tpot_s * answer)
        kept = exp(-dt / RECENT_S)
        free_s = tpot_s * (1.0 - kept * busy) - per_step_s - sequence_step_s * batch / stretched
        self._budget_s = max(free_s, 0.0) * dt * ready
        self._per_prefill = (1.0 - kept) * tpot_s * work_factor
        self._each_step = dt / (2.0 * stretched * answer)
        # Where the KV cache is what is short: as many as end, and what is free.
        ends_per_s = 1.0 / (now_s * answer)
        kept = exp(-ends_per_s * dt)
        most = mix.most_sequences
        streams = (most - batch * kept) * ends_per_s / (1.0 - kept)
        self._streams = max(streams, 0.0) * dt * ready
        self.used = 0.0
        self.work_per_s = ready * (1.0 - per_step_s / tpot_s)
        self._waiting_s = bridged_s * self.work_per_s
        self._waiting_most = bridged_s * ready * most * ends_per_s

    def share_of(self, load: Load, part: float) -> float:
        """What share of it fits in, of this part of what there is room for."""
        share, used_s = 1.0, self._cost_s(load)
        if used_s > self._budget_s * part:
            share = self._budget_s * part / used_s
        if load.requests * share > self._streams * part:
            share = self._streams * part / load.requests
        return share

    def lacks_streams(self, load: Load) -> bool:
        """Whether streams rather than TPOT are what there is too little of for it."""
        return load.requests * self._budget_s > self._streams * self._cost_s(load)

    def use(self, load: Load) -> None:
        """It is let in."""
        self.used = min(self._cost_s(load) / max(self._budget_s, _LEAST), 1.0)
        self._budget_s = max(self._budget_s - self._cost_s(load), 0.0)
        self._streams = max(self._streams - load.requests, 0.0)

    def too_much_s(self, waiting: Load) -> float:
        """Seconds of work that cannot be in time, of what is to wait."""
        each_s = waiting.work_s / waiting.requests if waiting.requests > _LEAST else 0.0
        by_count_s = (waiting.requests - self._waiting_most) * each_s
        return max(waiting.work_s - self._waiting_s, by_count_s, 0.0)

    def _cost_s(self, load: Load) -> float:
        return self._per_prefill * load.prefill_s + self._each_step * load.step_s


class HeldPool(FluidPool):
    """The pool's state behind a gateway that holds; used as `FluidPool` is."""

    def __init__(self, settings: ScalingSimulation, demand: Demand) -> None:
        super().__init__(settings, demand)
        self._engine = settings.engine
        self._ranked: dict[RequestMix, LongestFirst] = {}
        self._fresh = Load()  # at the gateway, in time
        self._late = Load()  # at the gateway, late
        self._late_since: deque[list[float]] = deque()  # [requests, arrived_s], oldest first
        self._runs = Load()
        self._in_time_tokens = 0.0
        self._let_in_per_s = 0.0
        self._at_last_moment = False
        self._came_s = 0.0  # work a second, lately
        self._busy = 0.0  # what prefills let in lately take of a replica's time
        self._metered = 0.0  # how far what ends was let in by the gateway's measure, 0 to 1
        self._off_sq = self._inverse_sq = 0.0

    def kv_usage(self, mix: RequestMix) -> float:
        """The KV caches that running sequences fill, in replicas."""
        runs = self._runs
        if runs.requests <= _LEAST:
            return 0.0
        longer = runs.input_tokens / runs.requests / mix.input_tokens
        return super().kv_usage(mix) * longer

    def waiting_input_tokens(self, mix: RequestMix, requests_per_s: float) -> float:  # noqa: ARG002 - what is let in counts
        """Prompt tokens in prefill; those of who waits at the gateway are in no engine."""
        prefilling_s = STEPS_TO_FIRST_TOKEN * self.tpot_s + mix.prefill_s
        return self._let_in_per_s * prefilling_s * mix.input_tokens

    def held(self) -> tuple[float, float]:
        """Requests at the gateway, and their prompt tokens."""
        fresh, late = self._fresh, self._late
        return fresh.requests + late.requests, fresh.input_tokens + late.input_tokens

    def advance(self, first: int, last: int, ready: int) -> None:
        """As `FluidPool.advance`; while no replica is ready, all wait at the gateway."""
        if ready:
            super().advance(first, last, ready)
            return
        demand, totals = self.demand, self.totals
        for tick in range(first, last):
            came = demand.requests[tick]
            mix = demand.mix(tick)
            totals.requests += came
            totals.input_tokens += came * mix.input_tokens
            self._pass_over(self._fresh.take(1.0), tick - 1)
            self._pass_over(self._ranked_of(mix).one.times(came), tick)
        self.waiting = self._late.requests

    def _serve(
        self, tick: int, mix: RequestMix, came: float, work_factor: float, ready: int
    ) -> None:
        now = tick * self.demand.tick_s
        fresh, late = self._choose(tick, mix, came, work_factor, ready)
        self._inverse_sq = self._ranked_of(mix).inverse_sq
        runs = self._runs
        wanted = fresh.requests + late.requests
        let_in = fresh.times(1.0)
        let_in.add(late)
        costs = _Now(mix, let_in, runs)
        count, after, step_s = self._step(costs, costs.prefill_s * work_factor, wanted, ready)
        if count < wanted:
            # Engines without room: who is turned away waits on.
            turned_away = 1.0 - count / wanted
            self._fresh.add(fresh.take(turned_away))
            self._late.add(late.take(turned_away))
            let_in = let_in.times(count / wanted)
        kept = exp(-self.demand.tick_s / RECENT_S)
        prefill_s = let_in.prefill_s * work_factor / (self.demand.tick_s * ready)
        self._busy = kept * self._busy + (1.0 - kept) * prefill_s
        self._first_tokens(now, mix, fresh, late, step_s)
        runs.add(let_in)
        there = self.running + count
        ended = there - after
        if ended > 0.0:
            self._end(tick, mix, ended, ended / there)
        self.running = after
        self._let_in_per_s = count / self.demand.tick_s
        self.waiting = self._fresh.requests + self._late.requests

    def _choose(
        self, tick: int, mix: RequestMix, came: float, work_factor: float, ready: int
    ) -> tuple[Load, Load]:
        """Who is let in: of those in time, and of those late. What cannot be in time is passed
        over.
        """
        ranked = self._ranked_of(mix)
        fresh, late, runs = self._fresh, self._late, self._runs
        new = ranked.one.times(came)
        fresh.add(new)
        came_s = new.work_s / self.demand.tick_s
        self._came_s += (came_s - self._came_s) * (1.0 - exp(-self.demand.tick_s / RECENT_S))
        oldest_s = self._oldest_s(tick * self.demand.tick_s)
        room = self._room = _Room(
            mix,
            runs,
            ready=ready,
            dt=self.demand.tick_s,
            per_step_s=self._latency.per_step_s,
            tpot_s=self._let_come_s(mix, oldest_s, ready),
            work_factor=work_factor,
            now_s=self.tpot_s,
            busy=self._busy,
            bridged_s=max((1.0 - EARLY) * self._ttft_s - mix.prefill_s, 0.0),
        )
        kept = STARVED_SHARE if oldest_s > STARVED_S else 0.0
        share = room.share_of(fresh, 1.0 - kept)
        self._at_last_moment = False
        if share < 1.0:
            over_s = room.too_much_s(fresh.times(1.0 - share))
            if over_s > 0.0:
                # A long prompt takes no more of the streams than a short one.
                by_length = came > 0.0 and not room.lacks_streams(fresh)
                passed = ranked.longest(over_s / came).times(came) if by_length else Load()
                fresh.add(passed, -1.0)
                more_s = over_s - passed.work_s
                if more_s > _LEAST and fresh.work_s > 0.0:
                    passed.add(fresh.take(min(more_s / fresh.work_s, 1.0)))
                self._pass_over(passed, tick)
                self._at_last_moment = not (by_length or self._lasts(oldest_s))
                share = room.share_of(fresh, 1.0 - kept)
        let_in = fresh.take(share)
        room.use(let_in)
        return let_in, late.take(room.share_of(late, 1.0)) if late.requests else Load()

    def _remember_tpot(self, mix: Costs, admitted: float, batch: float, dt: float) -> None:
        super()._remember_tpot(mix, admitted, batch, dt)
        now = 1.0 if self.waiting > _LEAST else max(self._room.used / METERED_FROM - 1.0, 0.0)
        self._metered += (min(now, 1.0) - self._metered) * self._smoothing
        step_s = self._latency.per_step_s + mix.sequence_step_s * batch
        free = min(step_s / self.tpot_s, 1.0)
        self._off_sq = PROMPTS_OFF * PROMPTS_OFF * mix.prefill_sq / (free * free)
        chance = 1.0 - self._metered
        self._prompt_noise *= chance
        self._batch_noise *= chance
        square = self._spread_s**2 * chance + self._metered * self._off_sq * self._inverse_sq
        self._spread_s = sqrt(square)

    def _tpot_variance(self, answer: float) -> float:
        metered = self._metered * self._off_sq / (answer * answer)
        return super()._tpot_variance(answer) + metered

    def _let_come_s(self, mix: RequestMix, oldest_s: float, ready: int) -> float:
        """The TPOT up to which requests are let in."""
        least_s, target_s = self._latency.per_step_s, self._tpot_s
        if self._lasts(oldest_s):
            busy = mix.prefill_s / mix.work_s * (1.0 - least_s / target_s)
            target_s *= AT_ONCE + DECODING * (1.0 - busy)
        else:
            done_s = ready * (1.0 - least_s / target_s)
            excess = 1.0 - done_s / self._came_s if self._came_s > done_s else 0.0
            target_s *= BEFORE + HASTE * excess
        # A target near the step time of an empty engine leaves room for some all the same.
        return max(target_s, least_s * LEAST_TPOT)

    def _lasts(self, oldest_s: float) -> bool:
        """Whether the gateway takes an overload for one that lasts."""
        return oldest_s > LASTING * OVERDUE * self._ttft_s

    def _oldest_s(self, now: float) -> float:
        """How long the oldest of the late ones has waited."""
        return now - self._late_since[0][1] if self._late_since else 0.0

    def _pass_over(self, load: Load, tick: int) -> None:
        """These wait with the late ones from now on."""
        if load.requests > 0.0:
            self._late.add(load)
            self._late_since.append([load.requests, tick * self.demand.tick_s])

    def _first_tokens(
        self, now: float, mix: RequestMix, fresh: Load, late: Load, step_s: float
    ) -> None:
        """Those let in get their first tokens: how many in time, and what the TTFT shows."""
        own_s = STEPS_TO_FIRST_TOKEN * self._mean_tpot_s + mix.prompt_p90_s
        if self._fresh.requests or late.requests:
            share = self._ttft_share(mix, 0.0, _NONE_WAIT)
            self.ttft_p90_s = own_s + self._fresh.work_s / self._room.work_per_s
        else:
            ratio, mean_s = tail = self._prefill_wait(mix, self._prompts_per_s, step_s)
            share = self._ttft_share(mix, 0.0, tail)
            self.ttft_p90_s = own_s + (
                mean_s * log(ratio / LATE_SHOWN) if ratio > LATE_SHOWN else 0.0
            )
        if self._at_last_moment:
            share *= LAST_MOMENT
        self._in_time += fresh.requests * share
        self._in_time_tokens += fresh.tokens * share
        if late.requests:
            in_time, longest_s = self._late_go(now, mix, late.requests)
            self._in_time += in_time
            self._in_time_tokens += in_time * late.tokens / late.requests
            if late.requests > LATE_SHOWN * (late.requests + fresh.requests):
                self.ttft_p90_s = own_s + longest_s

    def _late_go(self, now: float, mix: RequestMix, count: float) -> tuple[float, float]:
        """The oldest `count` of the late ones are let in: how many had no replica rather than too
        much before them and are in time, and the longest wait.
        """
        since, left, in_time, longest_s = self._late_since, count, 0.0, 0.0
        while left > _LEAST and since:
            oldest = since[0]
            taken, wait_s = min(oldest[0], left), now - oldest[1]
            in_time += taken * self._ttft_share(mix, wait_s, _NONE_WAIT)
            longest_s = max(longest_s, wait_s)
            left -= taken
            if oldest[0] - taken <= _LEAST:
                since.popleft()
            else:
                oldest[0] -= taken
        return in_time, longest_s

    def _end(self, tick: int, mix: RequestMix, ended: float, share: float) -> None:
        requests_share, tokens_share = self._in_time_by_tpot(mix)
        in_time, in_time_tokens = self._in_time * share, self._in_time_tokens * share
        self._in_time -= in_time
        self._in_time_tokens -= in_time_tokens
        gone = self._runs.take(share)
        self.tokens += gone.tokens
        self.met_tokens += in_time_tokens * tokens_share
        self.output_tokens += gone.output_tokens
        self._judge(tick, ended, in_time, in_time * requests_share, requests_share)

    def _left_tokens(self, mix: RequestMix) -> float:  # noqa: ARG002 - the loads know
        return self._runs.tokens + self._fresh.tokens + self._late.tokens

    def _ranked_of(self, mix: RequestMix) -> LongestFirst:
        ranked = self._ranked.get(mix)
        if ranked is None:
            ranked = self._ranked[mix] = LongestFirst(mix, self._engine)
        return ranked
