"""What the policy `seconds` counts as harm to answers that a prefill interrupts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.model import Replica
from tests.unit.core.driver import PROFILE
from tests.unit.core.policies.bench import Bench, State

LONG_PROMPT = 8192


def harm(
    decoding: int, *, mean: float, prompt_tokens: int = LONG_PROMPT, backlog: int = 0
) -> float:
    """What others pay, in seconds, where so many answers run and are `mean` tokens long."""
    bench = Bench("seconds", PROFILE, r00=State(backlog=backlog))
    replica: Replica = bench.replicas[0]
    replica.pool.output_tokens_mean = mean
    replica.decoding = decoding
    replica.in_flight = decoding + replica.prefilling
    return bench.price(prompt_tokens)[0].others_s


def test_a_prefill_is_worse_for_short_answers_than_for_long_ones():
    idle = harm(0, mean=15)
    assert harm(4, mean=15) - idle > 10 * (harm(4, mean=500) - idle)


def test_a_short_prompt_hardly_interrupts():
    harmed = harm(4, mean=15) - harm(0, mean=15)
    assert harm(4, mean=15, prompt_tokens=500) - harm(0, mean=15, prompt_tokens=500) < harmed / 20


def test_answers_that_have_not_begun_are_harmed_as_well():
    alone = harm(0, mean=15)
    assert harm(0, mean=15, backlog=100) > alone + 0.1


@settings(max_examples=40, deadline=None)
@given(
    decoding=st.integers(0, 200),
    mean=st.floats(0.0, 5000.0),
    tokens=st.integers(1, 100_000),
    backlog=st.integers(0, 100_000),
)
def test_no_company_makes_a_request_welcome(decoding, mean, tokens, backlog):
    """Harm is never negative, and one answer more never lessens it."""
    less = harm(decoding, mean=mean, prompt_tokens=tokens, backlog=backlog)
    more = harm(decoding + 1, mean=mean, prompt_tokens=tokens, backlog=backlog)
    assert 0.0 <= less <= more + 1e-9
