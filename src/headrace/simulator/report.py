"""The report of a simulation: one page that stands alone, with plots as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.simulator.runs import PolicyRun
from headrace.simulator.settings import SimulationSettings


def report_page(
    runs: Sequence[PolicyRun],
    settings: SimulationSettings,
    parameters: Sequence[tuple[str, str]],
) -> str:
    """The page as HTML."""
    raise NotImplementedError((runs, settings, parameters))
