"""After thirty answers of mixed traffic, the length of any prompt of it is known within 5 %."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.model import Endpoint, Request
from headrace.core.routing import ask_of
from tests.unit.core.driver import Driver

OVERHEAD_TOKENS = 29
BYTES_PER_TOKEN = 4.2
SMALLEST_BYTES, LARGEST_BYTES = 20.0, 40_000.0
TEXT_BYTES = st.floats(0.0, 1.0).map(
    lambda share: int(SMALLEST_BYTES * (LARGEST_BYTES / SMALLEST_BYTES) ** share)
)
CHATS = [Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES]


def true_tokens(endpoint: Endpoint, text_bytes: int) -> int:
    overhead = OVERHEAD_TOKENS if endpoint in CHATS else 0
    return max(1, round(overhead + text_bytes / BYTES_PER_TOKEN))


@given(
    short=st.lists(st.tuples(st.sampled_from(CHATS), st.integers(20, 400)), min_size=8),
    long=st.lists(st.tuples(st.sampled_from(CHATS), st.integers(4000, 40_000)), min_size=8),
    others=st.lists(st.tuples(st.sampled_from([*CHATS, Endpoint.COMPLETIONS]), TEXT_BYTES)),
    order=st.randoms(use_true_random=False),
    asked=st.tuples(st.sampled_from([*CHATS, Endpoint.COMPLETIONS]), TEXT_BYTES),
)
def test_thirty_answers_teach_the_length_of_prompts(short, long, others, order, asked):
    traffic = short[:12] + long[:12] + others
    order.shuffle(traffic)
    while len(traffic) < 30:
        traffic += traffic
    driver = Driver()
    driver.add("a")
    for endpoint, text_bytes in traffic[:30]:
        attempt = driver.dispatched(endpoint=endpoint, text_bytes=text_bytes).attempt
        driver.complete(attempt, input_tokens=true_tokens(endpoint, text_bytes))
    endpoint, text_bytes = asked
    request = Request("asked", "model", endpoint, True, text_bytes)
    estimated = ask_of(request, driver.dispatcher.fleet.pools["pool"], "").prompt_tokens
    expected = true_tokens(endpoint, text_bytes)
    assert abs(estimated - expected) <= max(1.0, 0.05 * expected)
