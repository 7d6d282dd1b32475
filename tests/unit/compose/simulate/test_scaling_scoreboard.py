"""What a comparison of scalers says in words."""

import pytest

from headrace.compose.simulate.scaling_scoreboard import verdict
from headrace.simulator.scaling.scores import ScalingScores


def scores(scaler, hours, attainment=0.995):
    return ScalingScores(scaler, attainment, attainment, hours, 1, 0)


@pytest.mark.parametrize(
    ("own", "baseline", "oracle", "said"),
    [
        (
            *(120.0, 140.0, 100.0),
            "at 99 %, headrace closes 50 % of the gap between the cheapest baseline and the oracle",
        ),
        (
            *(1.2, 4.1, 3.9),
            "at 99 %, headrace takes fewer replica-hours (1.20) than the oracle (3.90)",
        ),
        (
            *(3.8, 3.75, 3.7),
            (
                "at 99 %, headrace takes more replica-hours (3.80) than the cheapest baseline, "
                "hpa_rps (3.75)"
            ),
        ),
        (
            *(100.0, 100.0, 100.0),
            (
                "at 99 %, there is no gap to close: the cheapest baseline, hpa_rps, takes what the "
                "oracle takes (100.00 h)"
            ),
        ),
    ],
)
def test_a_share_of_a_gap_is_told_only_where_there_is_one(own, baseline, oracle, said):
    runs = [scores("headrace", own), scores("hpa_rps", baseline), scores("oracle", oracle)]
    assert verdict(runs, 0.99)[1:] == [said]


def test_nothing_is_said_of_a_gap_where_one_of_three_misses_the_goal():
    runs = [scores("headrace", 3.0), scores("hpa_rps", 4.0), scores("oracle", 2.0)]
    for place, run in enumerate(runs):
        short = [*runs]
        short[place] = scores(run.scaler, run.replica_hours, 0.98)
        assert len(verdict(short, 0.99)) == 1
