"""Loads: rates, burstiness, shares and classes as asked for; the same from the same seed."""

import pickle
from collections import Counter
from collections.abc import Iterable
from itertools import islice, pairwise
from math import inf
from statistics import mean, pstdev

import pytest

from headrace.traffic.arrival_plan import Arrivals, parse_process, parse_step
from headrace.traffic.length_classes import parse_lengths
from headrace.traffic.load import Extras, Load, PlannedRequest, SharedPrefix
from tests.generated_traffic import generate

LENGTHS = parse_lengths("64/16")
MIX = parse_lengths("short:64/128:9,long:32000/4000:1")


def at(rate: float, process: str = "poisson", duration_s: float = 1e9) -> Arrivals:
    return Arrivals.at(rate, parse_process(process), duration_s)


def gaps(planned: Iterable[PlannedRequest]) -> list[float]:
    return [later - earlier for earlier, later in pairwise([0.0, *(each.at_s for each in planned)])]


@pytest.mark.parametrize(
    ("process", "cv"),
    [("constant", 0.0), ("poisson", 1.0), ("gamma:cv=2", 2.0), ("weibull:cv=0.5", 0.5)],
)
def test_arrivals_have_the_rate_and_the_cv_asked_for(process: str, cv: float):
    found = gaps(islice(Load.drawn(at(50.0, process), LENGTHS, seed=3).stream(), 20_000))
    assert mean(found) == pytest.approx(1 / 50, rel=0.05)
    assert pstdev(found) / mean(found) == pytest.approx(cv, abs=0.1 if cv else 1e-6)


def test_steps_and_ramps_follow_each_other():
    segments = (parse_step("10", 20.0), parse_step("100", 20.0), parse_step("100..0", 20.0))
    load = Load.drawn(Arrivals(parse_process("poisson"), segments), LENGTHS, seed=1)
    per_segment = Counter(int(planned.at_s // 20) for planned in load.stream())
    assert per_segment[0] == pytest.approx(200, rel=0.25)
    assert per_segment[1] == pytest.approx(2000, rel=0.1)
    assert per_segment[2] == pytest.approx(1000, rel=0.15)
    assert (load.duration_s, load.peak_rps) == (60.0, 100.0)
    assert load.words.startswith("10 requests/s for 20 s, 100 for 20 s, 100..0 for 20 s, Poisson")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("normal", "known are constant, poisson, gamma:cv=2"),
        ("gamma", "not known"),
        ("gamma:cv=x", "cv is not from 0.05 to 20"),
        ("weibull:cv=100", "cv is not from 0.05 to 20"),
        ("poisson:cv=1", "not known"),
    ],
)
def test_a_process_that_is_not_known_is_refused(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        parse_process(text)


def test_a_mix_has_its_classes_lengths_and_weights():
    load = Load.drawn(at(1.0), MIX, seed=1, requests=5000)
    planned = list(load.stream())
    assert len(planned) == 5000
    lengths = {(each.length_class, each.input_tokens, each.output_tokens) for each in planned}
    assert lengths == {("short", 64, 128), ("long", 32000, 4000)}
    shorts = sum(each.length_class == "short" for each in planned)
    assert shorts == pytest.approx(4500, rel=0.03)
    assert load.mean_output_tokens == pytest.approx(0.9 * 128 + 0.1 * 4000)


def test_a_spread_has_its_mean_and_cv():
    load = Load.drawn(at(1.0), parse_lengths("2500~1.5/250~1"), seed=1, requests=20_000)
    tokens = [each.input_tokens for each in load.stream()]
    assert mean(tokens) == pytest.approx(2500, rel=0.05)
    assert pstdev(tokens) / mean(tokens) == pytest.approx(1.5, rel=0.15)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("64", "not INPUT/OUTPUT"),
        ("64/0", "0 is not from 1"),
        ("a:64/x", "'x' is not a number"),
        ("a:1/1,1/1", "needs a name of its own"),
        ("a:1/1,a:2/2", "needs a name of its own"),
        ("a:1/1:0", "weight is not above 0"),
        ("a:b:1/1:2", "not INPUT/OUTPUT"),
        ("2~-1/1", "cv -1 is not 0 or above"),
    ],
)
def test_lengths_that_cannot_be_read_are_refused(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        parse_lengths(text)


def test_extras_have_their_shares_and_change_nothing_else():
    plain = list(Load.drawn(at(9.0), MIX, seed=4, requests=4000).stream())
    extras = Extras(0.05, (("gold", 1.0), ("batch", 3.0)), SharedPrefix(500, 4))
    load = Load.drawn(at(9.0), MIX, seed=4, requests=4000, extras=extras)
    changed = list(load.stream())
    leaving = [each for each in changed if each.leave_after]
    assert len(leaving) == pytest.approx(200, rel=0.25)
    assert all(1 <= each.leave_after <= each.output_tokens for each in leaving)
    assert Counter(each.tier for each in changed)["gold"] == pytest.approx(1000, rel=0.1)
    assert Counter(each.shared for each in changed).keys() == {0, 1, 2, 3}
    for before, after in zip(plain, changed, strict=True):
        assert after.input_tokens == before.input_tokens + 500
        assert (after.at_s, after.output_tokens) == (before.at_s, before.output_tokens)


def test_a_seed_gives_one_load_in_any_process():
    extras = Extras(0.1, (("gold", 1.0), ("batch", 3.0)), SharedPrefix(500, 4))
    load = Load.drawn(at(9.0, "gamma:cv=2"), MIX, seed=4, requests=300, extras=extras)
    again = pickle.loads(pickle.dumps(load))
    assert list(load.stream()) == list(again.stream())
    other = Load.drawn(at(9.0, "gamma:cv=2"), MIX, seed=5, requests=300, extras=extras)
    assert list(load.stream()) != list(other.stream())


def test_users_think_for_as_long_as_they_are_told_to():
    load = Load.closed(10, LENGTHS, seed=1, think_s=2.0)
    pauses = [each.at_s for each in islice(load.stream(), 20_000)]
    assert mean(pauses) == pytest.approx(2.0, rel=0.03)
    busy = Load.closed(10, LENGTHS, seed=1)
    assert {each.at_s for each in islice(busy.stream(), 10)} == {0.0}
    assert (load.users, load.duration_s) == (10, inf)


def test_a_trace_is_played_as_it_is():
    trace = generate("multi_turn", requests=500, requests_per_s=5.0, seed=2)
    load = Load.of_trace(trace, seed=0)
    for planned, request in zip(load.stream(), trace.requests, strict=True):
        assert planned[:4] == request[:4]
    assert (load.requests, load.block_tokens) == (500, trace.block_tokens)
    with pytest.raises(ValueError, match="not in order"):
        Load.of_requests([PlannedRequest(1.0, 1, 1), PlannedRequest(0.5, 1, 1)], words="two")
