"""What the benchmarks of scaling play."""

import argparse

import pytest

from benchmarks.scaling_compare import baselines_of
from benchmarks.scaling_llmd_ramp import published_ramp


def test_baselines_are_chosen_by_name():
    assert baselines_of("hpa_rps, static") == ["hpa_rps", "static"]
    for none in ("oracle", "headrace", "hpa"):
        with pytest.raises(argparse.ArgumentTypeError, match=none):
            baselines_of(f"static,{none}")


def test_the_published_ramp_is_that_of_the_guide():
    # scored-config.yml: rate 2 for 330 s, then 360 s each of 4, 6, 8, 10 and 4, and 1 for 300 s.
    ramp = published_ramp()
    assert ramp.end_s == 2430.0
    assert [step.start_s for step in ramp.steps] == [0, 330, 690, 1050, 1410, 1770, 2130]
    assert [step.requests_per_s for step in ramp.steps] == [2, 4, 6, 8, 10, 4, 1]
    assert {(step.mean_input_tokens, step.mean_output_tokens) for step in ramp.steps} == {
        (4000.0, 1000.0)
    }
