"""What a client is told when no replica took its request."""

import pytest

from headrace.core.events import Ended
from headrace.core.model import Outcome
from headrace.core.rejections import MOST_RETRY_AFTER_S, soonest_s

BUSY_S = 2.0


def refused(status, retry_after_s):
    return Ended(1, Outcome.UNAVAILABLE, status=status, retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    ("ends", "soonest"),
    [
        ([], BUSY_S),
        ([refused(503, None)], BUSY_S),
        ([refused(503, 7.0), refused(429, 5.0)], 5.0),
        ([refused(503, 7.0), refused(500, 3.0)], 7.0),  # a fault says nothing of when there is room
        ([refused(503, 0.5)], BUSY_S),
        ([refused(429, 3600.0)], MOST_RETRY_AFTER_S),
    ],
)
def test_the_first_of_the_full_replicas_says_when_there_is_room(ends, soonest):
    assert soonest_s(ends, BUSY_S) == soonest
