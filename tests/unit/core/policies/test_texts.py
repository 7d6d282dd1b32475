"""Policies as people write them: names, parameters, lists, and what is wrong with them."""

import pytest

from headrace.core.baselines import hit_tokens_of
from headrace.core.candidates import ENOUGH, Scope
from headrace.core.events import ConfigChanged
from headrace.core.policies import (
    POLICIES,
    make_policy,
    parameters_of,
    split_policies,
    sweep_of,
)
from headrace.core.specs import PoolSpec
from headrace.core.ties import Ties
from tests.unit.core.driver import Driver, chain
from tests.unit.core.policies.bench import Bench, State


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("secnds", "unknown policy 'secnds', did you mean 'seconds'? known: aibrix_prefix_cache, "),
        ("", "unknown policy ''; known: aibrix_prefix_cache, "),
        (
            "dynamo_kv:overlap_wieght=4",
            "policy 'dynamo_kv': unknown parameter 'overlap_wieght', did you mean 'overlap_w",
        ),
        ("dynamo_kv:x=4", "policy 'dynamo_kv': unknown parameter 'x'; known: overlap_weight"),
        (
            "dynamo_kv:overlap_weight",
            "policy 'dynamo_kv': 'overlap_weight' sets nothing; write parameter=number, known: ",
        ),
        ("dynamo_kv:", "policy 'dynamo_kv': '' sets nothing"),
        (
            "dynamo_kv:overlap_weight=much",
            "policy 'dynamo_kv': overlap_weight is 'much'; give a number, 0 or more",
        ),
        ("dynamo_kv:overlap_weight=-1", "overlap_weight is '-1'; give a number, 0 or more"),
        ("dynamo_kv:overlap_weight=nan", "overlap_weight is 'nan'; give a number, 0 or more"),
        ("dynamo_kv:overlap_weight=inf", "overlap_weight is 'inf'; give a number, 0 or more"),
        (
            "dynamo_kv:block_tokens=1.5",
            "policy 'dynamo_kv': block_tokens is '1.5'; give a whole number, 0 or more",
        ),
        ("dynamo_kv:block_tokens=0", "policy 'dynamo_kv': block_tokens is 0; give 1 or more"),
        ("llmd_default:block_tokens=0", "policy 'llmd_default': block_tokens is 0; give 1 or more"),
        (
            "dynamo_kv:temperature=1,temperature=2",
            "policy 'dynamo_kv': parameter 'temperature' is given twice",
        ),
        (
            "round_robin:turns=2",
            "policy 'round_robin' takes no parameters, but 'turns=2' is given",
        ),
    ],
)
def test_what_is_wrong_is_named(text, said):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared below
        make_policy(text)
    assert str(caught.value).startswith(said) or said in str(caught.value)


def test_a_wrong_policy_of_a_pool_names_the_pool():
    with pytest.raises(ValueError, match="pool 'p': policy 'dynamo_kv': unknown parameter 'x'"):
        Driver().send(ConfigChanged((PoolSpec("p", "m", policy="dynamo_kv:x=1"),), ()))


def test_spaces_do_not_matter():
    bench = Bench(" dynamo_kv : overlap_weight = 2 , temperature=0 ", a=State(hit=1))
    assert bench.costs(160, block_tokens=16) == {"a": 10 - 2 + 10}


def test_parameters_take_the_place_of_the_defaults_when_the_configuration_changes():
    driver = Driver(PoolSpec("pool", "model", policy="sglang_cache_aware"))
    driver.add("a", "b")
    driver.serve(blocks=chain("it"), text_bytes=4000)
    warm = "a"
    for text, picked in (("cache_threshold=0.9", "b"), ("cache_threshold=0.2", warm)):
        spec = PoolSpec("pool", "model", policy=f"sglang_cache_aware:{text}")
        driver.send(ConfigChanged((spec,), ()))
        dispatch = driver.dispatched(blocks=chain("it"), text_bytes=4000)
        assert dispatch.replica == picked
        driver.complete(dispatch.attempt)
        driver.gone("b")
        driver.add("b")


@pytest.mark.parametrize(
    ("text", "policies"),
    [
        ("seconds", ("seconds",)),
        ("a,b:x=1,y=2,c", ("a", "b:x=1,y=2", "c")),
        (" a , b:x=1 ,y=2, c:z=3 ", ("a", "b:x=1,y=2", "c:z=3")),
        ("a,,b,", ("a", "b")),
        ("", ()),
        ("x=1", ("x=1",)),
    ],
)
def test_a_list_of_policies(text, policies):
    assert split_policies(text) == policies


@pytest.mark.parametrize("name", list(POLICIES))
def test_what_a_sweep_tries_can_be_made_and_is_not_much(name):
    known, sweep = parameters_of(name), sweep_of(name)
    assert set(sweep) <= set(known)
    combinations = 1
    for parameter, values in sweep.items():
        combinations *= len(values)
        assert len(set(values)) == len(values) > 1
        for value in values:
            make_policy(f"{name}:{parameter}={value}")
    assert combinations <= 12


def test_the_sweep_of_dynamo_brackets_the_weight_of_4():
    weights = sweep_of("dynamo_kv")["overlap_weight"]
    assert min(weights) < 4.0 < max(weights)
    assert 4.0 in weights


# ---------------------------------------------------------------- what they share


def test_splitmix64_as_published():
    # The first outputs for the seed 0, from the reference implementation by Sebastiano Vigna.
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC)
    ties = Ties()
    assert [ties.ratio() for _ in published] == [(word >> 11) * 2.0**-53 for word in published]


def test_below_is_even():
    ties = Ties()
    drawn = [ties.below(7) for _ in range(7000)]
    assert all(900 < drawn.count(number) < 1100 for number in range(7))


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "power_of_two"])
def test_of_a_large_fleet_the_pick_is_the_cheapest_and_few_are_priced(policy):
    states = {
        f"r{number:03}": State((number * 7) % 50, hit=(number % 40) // 36, context=number)
        for number in range(300)
    }
    bench = Bench(policy, **states)
    rows = bench.price(640)
    assert make_policy(policy).scope in {Scope.ALL, Scope.SHORTLIST}
    if policy not in {"seconds", "preble_like"}:
        assert len(rows) == ENOUGH
    assert rows[0].cost == min(row.cost for row in rows)


def test_hits_reach_their_replicas():
    states = {f"r{number:03}": State(hit=(number * number) % 9) for number in range(120)}
    bench = Bench("dynamo_kv", **states)
    ask = bench.ask(640)
    expected = [min(64 * state.hit, 639) for state in states.values()]
    assert hit_tokens_of(ask, bench.replicas) == expected
    assert hit_tokens_of(ask, bench.replicas[3:5]) == expected[3:5]
    ask.hits = []
    assert hit_tokens_of(ask, bench.replicas) == [0] * 120
