"""The scatter of the scaling report: names that can be read, however near their dots are."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from headrace.simulator.scaling import plots
from headrace.simulator.scaling.scalers import NAMES
from headrace.simulator.scaling.scores import ScalingScores

NAME = re.compile(r'<text x="([\d.]+)" y="([\d.]+)" class="name" text-anchor="(\w+)">([^<]+)<')
DOT = re.compile(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="6')
LETTER_WIDTH, HEIGHT = 7.0, 12.0
"""Of a letter as browsers draw it, about."""


def scores(scaler: str, attainment: float, replica_hours: float) -> ScalingScores:
    return ScalingScores(scaler, attainment, attainment, replica_hours, peak=2, changes=3)


def boxes(drawing: str) -> dict[str, tuple[float, float, float, float]]:
    """Where each name is: left, upper, right, lower."""
    found = {}
    for x, y, anchor, name in NAME.findall(drawing):
        width = LETTER_WIDTH * len(name)
        left = float(x) if anchor == "start" else float(x) - width
        found[name] = (left, float(y) - HEIGHT, left + width, float(y))
    return found


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 30.0], ids="{:g} hours apart".format)
@pytest.mark.parametrize("attainment", [1.0, 0.995, 0.92], ids="{:.1%}".format)
def test_each_name_can_be_read(spread: float, attainment: float):
    runs = [scores(name, attainment, 50.0 + i * spread) for i, name in enumerate(NAMES)]
    drawing = plots.scatter([*runs, scores("llmd_slo:up=0.4,down=0.2", 0.9, 80.0)], goal=0.99)
    names = boxes(drawing)
    dots = [
        (float(x) - 3, float(y) - 3, float(x) + 3, float(y) + 3) for x, y in DOT.findall(drawing)
    ]
    assert sorted(names) == sorted(NAMES)
    assert len(dots) == len(NAMES)
    assert not [pair for pair in combinations(names, 2) if overlap(names[pair[0]], names[pair[1]])]
    assert not [name for name, box in names.items() if any(overlap(box, dot) for dot in dots)]
    assert all(
        box[0] >= 0 and box[2] <= 720 and box[1] >= 0 and box[3] < 338 for box in names.values()
    )


def hours_shown(*runs: ScalingScores) -> list[str]:
    return re.findall(r'class="tick" text-anchor="middle">([^<]+)<', plots.scatter(runs, goal=0.99))


def test_an_end_of_the_axis_says_that_a_run_lies_beyond_it():
    fair = (scores("headrace", 0.99, 100.0), scores("static", 0.9, 200.0))
    assert hours_shown(*fair) == ["100", "200"]
    assert hours_shown(*fair, scores("hpa_cpu", 0.0, 7.0)) == ["≤ 100", "200"]
    assert hours_shown(*fair, scores("keda_queue", 0.2, 9000.0)) == ["100", "≥ 200"]
