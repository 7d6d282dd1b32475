"""The reference of profile files names every key."""

from dataclasses import fields
from pathlib import Path

import pytest

from headrace.engine_model.measured import Interval, MeasuredProfile, Provenance, Residuals

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "latency-profile.md"


@pytest.mark.parametrize("part", [MeasuredProfile, Interval, Residuals, Provenance])
def test_every_key_stands_on_the_page(part: type):
    text = PAGE.read_text(encoding="utf-8")
    assert [each.name for each in fields(part) if f"`{each.name}`" not in text] == []
