"""Shapes of demand for comparisons of scalers, made here so that nothing is tuned to one file.

    ramp      2 to 10 to 1 times a base rate, in even steps
    steps     the base rate, five times it, and back, every two hours
    spikes    a flat day with bursts of three times the rate, some minutes long, at random
    regular   days that repeat: nights at a third, two peaks, weekends lower, 5 % noise
    jumps     four days that jump to 1.3 to 1.7 times the load or back, five times a day, at random
    bursts    two flat days with bursts of 1.5 to 3 times the rate that fade within minutes
    week      as regular, with a trend, a promotion that nobody announced, and hourly noise

Rates are in units of what `mean_replicas` replicas bear, so that every shape needs about as many.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from math import cos, exp, pi

from headrace.traffic.rates import Rates, RateStep

STEP_S = 600.0
MINUTE_S, DAY_S = 60.0, 86_400.0
PROMPT, ANSWER = 900.0, 200.0


def ramp(seed: int) -> Rates:
    """2 → 10 → 1, half an hour each."""
    del seed
    levels = [*range(2, 11), *range(9, 0, -1)]
    return _rates("ramp", [level for level in levels for _ in range(3)])


def steps(seed: int) -> Rates:
    """One, five, one, five, one."""
    del seed
    return _rates("steps", [level for level in (1, 5, 1, 5, 1) for _ in range(12)])


def spikes(seed: int) -> Rates:
    """Flat, with bursts of one to three steps."""
    rng = random.Random(f"spikes {seed}")
    levels = [1.0] * int(2 * DAY_S / STEP_S)
    at = 12
    while at < len(levels):
        for place in range(at, min(at + rng.randint(1, 3), len(levels))):
            levels[place] = 3.0
        at += rng.randint(9, 40)
    return _rates("spikes", levels)


def regular(seed: int) -> Rates:
    """Seven days alike."""
    rng = random.Random(f"regular {seed}")
    levels = [_of_day(place) * exp(rng.gauss(0.0, 0.05)) for place in range(7 * 144)]
    return _rates("regular", levels)


def jumps(seed: int) -> Rates:
    """Two levels, each held until a jump at a random minute."""
    rng = random.Random(f"jumps {seed}")
    made: list[RateStep] = []
    at_s, level = 0.0, 1.0
    while at_s < 4 * DAY_S:
        made.append(RateStep(at_s, level, PROMPT, ANSWER))
        at_s += MINUTE_S * max(round(rng.expovariate(5.0 / DAY_S) / MINUTE_S), 1)
        level = rng.uniform(1.3, 1.7) if level == 1.0 else 1.0
    return Rates("jumps", made, 4 * DAY_S)


def bursts(seed: int) -> Rates:
    """Flat, with bursts that come at once, one in two and a half hours, and fade within minutes."""
    rng = random.Random(f"bursts {seed}")
    levels = [1.0] * int(2 * DAY_S / MINUTE_S)
    at = 60
    while at < len(levels):
        height = rng.uniform(0.5, 2.0)
        for place in range(at, min(at + 40, len(levels))):
            levels[place] += height * exp((at - place) / 8.0)
        at += int(rng.expovariate(1.0 / 120.0)) + 20
    return _rates("bursts", levels, MINUTE_S)


def week(seed: int) -> Rates:
    """Ten days with more going on."""
    rng = random.Random(f"week {seed}")
    levels: list[float] = []
    slow = 0.0
    for place in range(10 * 144):
        slow = 0.95 * slow + rng.gauss(0.0, 0.05)
        level = _of_day(place) * (1.0 + 0.03 * place / 144) * exp(slow + rng.gauss(0.0, 0.04))
        if 4 * 144 + 70 <= place < 4 * 144 + 100:
            level *= 2.2
        levels.append(level)
    return _rates("week", levels)


SHAPES: dict[str, Callable[[int], Rates]] = {
    "ramp": ramp,
    "steps": steps,
    "spikes": spikes,
    "regular": regular,
    "jumps": jumps,
    "bursts": bursts,
    "week": week,
}


def jittered(rates: Rates, seed: int) -> Rates:
    """The same with each change at a random moment near its own, so that no clock tells of it."""
    rng = random.Random(f"jitter {seed}")
    steps: list[RateStep] = []
    spans = [later.start_s - step.start_s for step, later in pairwise(rates.steps)]
    near_s = min([STEP_S, *spans])
    for step in rates.steps:
        at_s = step.start_s + (rng.uniform(-0.45, 0.45) * near_s if steps else 0.0)
        steps.append(
            RateStep(at_s, step.requests_per_s, step.mean_input_tokens, step.mean_output_tokens)
        )
    return Rates(f"{rates.name}, jittered", steps, rates.end_s)


def paced(rates: Rates, pace: float) -> Rates:
    """The same `pace` times as fast: at 3 in a third of the time."""
    steps = [
        RateStep(
            step.start_s / pace,
            step.requests_per_s,
            step.mean_input_tokens,
            step.mean_output_tokens,
        )
        for step in rates.steps
    ]
    return Rates(rates.name, steps, rates.end_s / pace)


def _of_day(place: int) -> float:
    """The level of a step of a usual week: low at night, two peaks, weekends at 70 %."""
    hour = (place % 144) / 6.0
    day = place // 144 % 7
    level = 1.0 - 0.45 * cos(2 * pi * (hour - 4.0) / 24.0) + 0.2 * cos(4 * pi * (hour - 11.0) / 24)
    return level * (0.7 if day >= 5 else 1.0)


def _rates(name: str, levels: list[float], step_s: float = STEP_S) -> Rates:
    made = [RateStep(i * step_s, level, PROMPT, ANSWER) for i, level in enumerate(levels)]
    return Rates(name, made, len(made) * step_s)
