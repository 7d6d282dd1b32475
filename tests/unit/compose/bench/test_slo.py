"""`--slo`, as people write it, and what they are told otherwise."""

from math import inf

import pytest

from headrace.bench.figures.slo import Slo, Slos
from headrace.compose.bench.slo import BenchSloError, parse_slos


def test_nothing_said_is_the_usual():
    assert parse_slos([]) == Slos(Slo(ttft_s=2.0, tpot_s=0.05))


def test_targets_by_tier():
    found = parse_slos(["ttft=2s, tpot=50ms", "gold:ttft=1s,share=95%", "batch:e2e=5m,share=0.9"])
    assert found.default == Slo(ttft_s=2.0, tpot_s=0.05)
    assert found.of("gold") == Slo(ttft_s=1.0, share=0.95)
    assert found.of("batch") == Slo(e2e_s=300.0, share=0.9)
    assert found.of("other") == found.default


def test_a_tier_alone_leaves_the_others_without_targets():
    assert parse_slos(["gold:ttft=1s"]).of("") == Slo(ttft_s=inf)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["ttft"], "'ttft' is no target"),
        (["itl=5ms"], "'itl=5ms' is no target (ttft, tpot, e2e, share)"),
        (["ttft=fast"], "ttft is 'fast'; give a duration"),
        (["ttft=2000,tpot=50"], "ttft is '2000'; give its unit, as in 2000ms or 2000s"),
        (["ttft=0s"], "give more than 0 seconds"),
        (["ttft=1s,ttft=2s"], "ttft is given twice"),
        (["share=100%"], "give a share below 100%"),
        (["share=x"], "give a share"),
        (["ttft=1s", "ttft=2s"], "the targets of all requests are given twice"),
        (["a:ttft=1s", "a:tpot=1s"], "the targets of tier a are given twice"),
        ([":ttft=1s"], "no tier before the colon"),
        ([""], "is no target"),
    ],
)
def test_what_is_wrong_is_named(texts, said):
    with pytest.raises(BenchSloError) as caught:
        parse_slos(texts)
    message = str(caught.value)
    assert message.startswith("--slo ")
    assert said in message
    assert "\n" not in message
