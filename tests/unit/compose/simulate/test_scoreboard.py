"""The table of a simulation: the best is marked, and a narrow terminal shows less."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from headrace.compose.simulate.scoreboard import scoreboard
from headrace.simulator.results import Distribution, Scores
from headrace.simulator.settings import Slo

ONE = Scores("seconds", 100, 100, 0, 0.5, Distribution(0.2), Distribution(0.01), 0.9, 700.0)
RUNS = [
    ONE,
    replace(ONE, policy="other:weight=4", hit_ratio=0.6, ttft_s=Distribution(0.3), completed=90),
    replace(ONE, policy="pooled_reference", hit_ratio=0.7, ttft_s=Distribution(0.1)),
]


def shown(width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(scoreboard(RUNS, Slo(), width))
    return out.getvalue().splitlines()


def row(width: int, policy: str) -> str:
    (found,) = [line for line in shown(width) if line.lstrip().startswith(policy)]
    return found


def test_the_best_policy_of_each_column_is_marked_and_the_reference_never():
    assert "0.200*" in row(200, "seconds")
    assert "60.00*" in row(200, "other")
    assert "*" not in row(200, "pooled_reference")
    assert row(200, "other").split()[-1] == "10"


@pytest.mark.parametrize("width", [72, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_nor_a_figure_cut(width):
    lines = shown(width)
    assert max(map(len, lines)) <= width
    assert not any("…" in line for line in lines)
    for column in ("policy", "goodput %", "TTFT s mean", "not served"):
        assert any(column in line for line in lines)


def test_one_policy_alone_is_not_the_best():
    out = io.StringIO()
    Console(file=out, width=200).print(scoreboard([ONE], Slo(), 200))
    assert "0.200*" not in out.getvalue()
