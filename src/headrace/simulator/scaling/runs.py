"""One scaler, or several side by side, against one workload.

`oracle` without a margin is searched: the least margin, to `MARGIN_STEP`, whose run reaches the
goal. In event mode it is searched as a fluid first, and then raised until the events reach it too,
or lowered as long as they do: prefixes that hit, which a fluid knows nothing of, make it less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from headrace.simulator.scaling.demand import Demand
from headrace.simulator.scaling.event_run import run_events
from headrace.simulator.scaling.fluid_run import OnProgress, run_fluid
from headrace.simulator.scaling.scalers import ORACLE
from headrace.simulator.scaling.scalers.oracle import Oracle
from headrace.simulator.scaling.scores import ScalingRun
from headrace.simulator.scaling.settings import ScalingSimulation
from headrace.simulator.side_by_side import Report, side_by_side
from headrace.traffic.trace import TraceRequest

LEAST_MARGIN, MOST_MARGIN, MARGIN_STEP = 0.6, 4.0, 0.01
FACTOR, MOST_STEPS_UP, MOST_STEPS_DOWN = 1.04, 8, -36
"""Of the margin, where single requests need another one than a fluid: up to 1.37 times as much, and
down to a quarter where most of each prompt is a prefix that hits."""


@dataclass(frozen=True, slots=True)
class ScalingWorkload:
    """What arrives: as ticks, and as single requests where events are to be played."""

    name: str
    demand: Demand
    requests: Sequence[TraceRequest] | None = None
    block_tokens: int = 512
    notes: tuple[str, ...] = ()

    @property
    def mode(self) -> str:
        """`fluid` or `events`."""
        return "fluid" if self.requests is None else "events"


def run_scaler(
    settings: ScalingSimulation,
    workload: ScalingWorkload,
    written: str,
    on_progress: OnProgress | None = None,
) -> ScalingRun:
    """Play one scaler in this process."""
    if written == ORACLE:
        return _searched_oracle(settings, workload, on_progress)
    return _played(settings, workload, written, on_progress)


def _played(
    settings: ScalingSimulation,
    workload: ScalingWorkload,
    written: str,
    on_progress: OnProgress | None = None,
) -> ScalingRun:
    if workload.requests is None:
        return run_fluid(settings, workload.demand, written, on_progress)
    return run_events(
        settings,
        workload.demand,
        workload.requests,
        written,
        on_progress,
        block_tokens=workload.block_tokens,
    )


def run_scalers(
    settings: ScalingSimulation,
    workload: ScalingWorkload,
    scalers: Sequence[str],
    *,
    processes: int,
    report: Report,
) -> Iterator[ScalingRun]:
    """Play each scaler; the runs come in their order, whoever is done first.

    Raises what a run raises.
    """
    play = partial(run_scaler, settings, workload)
    return side_by_side(play, scalers, processes=processes, report=report)


def _searched_oracle(
    settings: ScalingSimulation, workload: ScalingWorkload, on_progress: OnProgress | None
) -> ScalingRun:
    """The run of the least margin that reaches the goal."""
    low, high = LEAST_MARGIN, MOST_MARGIN
    best: ScalingRun | None = None
    rounds = 0
    while high - low > MARGIN_STEP:
        # The answer is near 1: halve towards it first, rather than from 4.
        middle = min((low + high) / 2, max(low * 1.3, low + MARGIN_STEP / 2))
        run = run_fluid(settings, workload.demand, f"{ORACLE}:margin={middle:.4f}")
        rounds += 1
        if on_progress is not None:
            on_progress(min(rounds / 10, 0.99))
        if run.scores.attainment >= settings.goal:
            high, best = middle, run
        else:
            low = middle
    if best is None:
        best = run_fluid(settings, workload.demand, f"{ORACLE}:margin={high:.4f}")
    if workload.requests is not None:
        best = _moved(settings, workload, high)
    return replace(best, scores=replace(best.scores, scaler=ORACLE))


def _moved(settings: ScalingSimulation, workload: ScalingWorkload, margin: float) -> ScalingRun:
    """The run of single requests with the least margin that reaches the goal, by steps of `FACTOR`
    up or down from one found as a fluid; where none does, that with the most.
    """
    runs: dict[int, ScalingRun] = {}
    known: dict[tuple[int, ...], ScalingRun] = {}

    def reaches(step: int) -> bool:
        if step not in runs:
            tried = round(margin * FACTOR**step, 4)
            planned = Oracle(settings, workload.demand, margin=tried).planned
            if planned not in known:
                known[planned] = _played(settings, workload, f"{ORACLE}:margin={tried}")
            runs[step] = known[planned]
        return runs[step].scores.attainment >= settings.goal

    high, stride = 0, 1
    while not reaches(high) and high < MOST_STEPS_UP:
        high += 1
    low = high - 1
    while low not in runs and low > MOST_STEPS_DOWN and reaches(low):
        high, stride = low, stride * 2
        low = max(high - stride, MOST_STEPS_DOWN)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return runs[high]
