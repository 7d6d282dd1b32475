"""Looks ahead: what demand will be, learned from what it was."""

from __future__ import annotations

from headrace.core.scaling.decision import PoolScaler
from headrace.core.scaling.settings import EngineFigures, ScalingSettings
from headrace.forecasting.learned_margin import LearnedMargin


def pool_scaler(settings: ScalingSettings, figures: EngineFigures) -> PoolScaler:
    """The scaler of a pool as Headrace runs it, with its forecast."""
    return PoolScaler(settings, figures, LearnedMargin(settings.target.attainment))
