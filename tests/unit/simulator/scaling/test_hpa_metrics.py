"""What an HPA proposes for one metric: Kubernetes' replica calculator, worked out by hand."""

import pytest

from headrace.simulator.scaling.hpa_metrics import by_utilisation, per_replica


@pytest.mark.parametrize(
    ("total", "ordered", "proposed"),
    [
        (8.9, 10, 9),  # 0.89 is outside the tolerance, although 9 of 10 would be within
        (8.1, 9, 9),  # 0.9 is within
        (8.09, 9, 9),  # outside, and rounded up to what there is
        (11.0, 10, 10),  # 1.1 is within
        (11.01, 10, 12),  # 1.101 is not
        (10.1, 10, 10),
        (2.2, 2, 2),
        (2.21, 2, 3),
        (0.0, 4, 0),
        (0.3, 0, 1),  # from none there is no ratio
    ],
)
def test_the_tolerance_is_for_the_metric_before_it_is_rounded(total, ordered, proposed):
    assert per_replica(total, 1.0, ordered) == proposed


def test_values_and_targets_are_whole_thousandths_cut_off():
    assert per_replica(3.0009, 1.0, 1) == 3
    assert per_replica(3.001, 1.0, 1) == 4
    assert per_replica(3.0, 1.0009, 1) == 3
    assert per_replica(0.004, 0.0001, 1) == 4  # the least target that can be written


@pytest.mark.parametrize(
    ("used", "ready", "ordered", "proposed"),
    [
        (6.0, 4, 4, 6),  # 75 % of 2 cores each, 50 % wanted: 1.5 * 4
        (4.4, 4, 4, 4),  # 55 % is within
        (4.47, 4, 4, 4),  # 55.875 %: Kubernetes counts whole percent
        (4.48, 4, 4, 5),  # 56 %
        (3.6, 4, 4, 4),  # 45 % is within
        (3.59, 4, 4, 4),  # 44 %: 0.88 * 4, rounded up
        (2.0, 4, 4, 2),
        (6.0, 4, 6, 6),  # up with two that start: 6/12 is 50 %
        (7.0, 4, 6, 7),  # 7/12 is 58 %: 1.16 * 6
        (5.0, 4, 6, 6),  # 5/12 is 41 %: no longer up, so nothing
        (2.0, 4, 6, 2),  # down: those that start are not counted, nor kept
        (0.0, 0, 3, 3),  # no pod has a metric
    ],
)
def test_cpu_is_a_share_of_those_that_are_ready(used, ready, ordered, proposed):
    assert by_utilisation(used, 2.0, 0.5, ready=ready, ordered=ordered) == proposed
