"""How busy the memory of replicas is, by the bytes of their profile and the steps streams show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.core.scaling.observation import Phase, PoolObservation
from headrace.core.scaling.settings import EngineFigures
from headrace.core.scaling.view import ScalingView
from headrace.core.signals.memory_bandwidth import memory_bandwidth, memory_use
from headrace.engine_model.profiles import profile
from headrace.forecasting import pool_scaler
from tests.unit.core.scaling.test_signals import told, view_of
from tests.unit.core.scaling.world import FIGURES, SETTINGS, World, each_replica

WEIGHTS, KV, PEAK = 1.5e10, 131_072.0, 3.35e12
KNOWN = FIGURES.priced_by(
    replace(
        FIGURES.latency,
        memory_bytes_per_s=PEAK,
        weight_bytes_per_step=WEIGHTS,
        kv_bytes_per_token=KV,
    )
)
TOKENS = 200_000.0


def step_at(ratio: float, tokens: float = TOKENS) -> float:
    """A step in which the bytes are this share of what the memory can move."""
    return (WEIGHTS + tokens * KV) / (ratio * PEAK)


def paced(ratio: float, tokens: float = TOKENS, **fields) -> ScalingView:
    shown = {"decode_step_s": step_at(ratio, tokens), "decoding_context_tokens": tokens}
    return view_of(load=3.0, replica=shown, **{"figures": KNOWN, **fields})


@pytest.mark.parametrize("ratio", [0.2, 0.6, 0.97])
def test_the_ratio_goes_by_the_step_that_streams_show(ratio: float):
    use = memory_use(paced(ratio))
    assert use.source == "modelled"
    assert use.ratio == pytest.approx(ratio)
    assert use.weights_ratio == pytest.approx(ratio * WEIGHTS / (WEIGHTS + TOKENS * KV))
    assert f"streams show steps of {step_at(ratio) * 1e3:.1f} ms" in use.note


def test_it_raises_above_the_target_and_not_below_it():
    raised = told(memory_bandwidth(paced(0.97)))
    assert (raised.kind, raised.why) == ("raises", "modelled")
    assert 4.0 < raised.replicas < 5.0
    assert memory_bandwidth(paced(0.5)) is None


def test_more_replicas_would_not_help_where_weights_alone_fill_the_bandwidth():
    assert memory_bandwidth(paced(0.95, tokens=1000.0)) is None
    dcgm = view_of(
        load=3.0,
        figures=KNOWN,
        replica={
            "memory_bandwidth_ratio": 0.95,
            "decode_step_s": step_at(0.9, 1000.0),
            "decoding_context_tokens": 1000.0,
        },
    )
    assert memory_use(dcgm).source == "measured"
    assert memory_bandwidth(dcgm) is None


def test_what_no_memory_can_move_is_not_believed():
    use = memory_use(paced(1.4))
    assert (use.ratio, use.source) == (None, "")
    assert "1.40 of the peak: the engines have other weights" in use.note
    assert memory_bandwidth(paced(1.4)) is None


def test_a_profile_that_tells_no_bytes_leaves_it_unknown_and_says_so():
    use = memory_use(paced(0.97, figures=FIGURES))
    assert (use.ratio, use.source) == (None, "")
    assert "a test" in use.note
    assert "gpu_metrics" in use.note
    assert memory_bandwidth(paced(0.97, figures=FIGURES)) is None


def test_it_is_not_known_while_nothing_decodes():
    use = memory_use(view_of(load=0.0, figures=KNOWN))
    assert (use.ratio, use.note) == (None, "no stream has shown of late how long a step is")


def test_a_replica_that_shows_no_step_among_others_that_do_moves_nothing():
    view = paced(0.8)
    silent = replace(view.ready[0], decode_step_s=None)
    view.ready = view.fresh = (silent, *view.ready[1:])
    assert memory_use(view).ratio == pytest.approx(0.8 * 3 / 4)


def test_engines_without_metrics_are_known_by_their_streams():
    view = paced(0.8)
    view.ready = tuple(replace(each, measured_age_s=None) for each in view.ready)
    view.fresh = ()
    assert memory_use(view).ratio == pytest.approx(0.8)


def test_a_plan_tells_it():
    scaler = pool_scaler(SETTINGS, KNOWN)
    world = World(lambda now: 60.0, scaler=scaler, replicas=3)
    world.spoil = each_replica(
        decode_step_s=step_at(0.97), decoding_context_tokens=TOKENS, kv_usage_ratio=0.45
    )
    world.run(900.0)
    memory = world.plan.memory
    assert memory is not None
    assert memory.ratio == pytest.approx(0.97)
    raised = [each for each in world.plan.signals if each.name == "memory_bandwidth"]
    assert [each.why for each in raised] == ["modelled"]


def test_what_was_raised_stays_while_a_rolling_upgrade_has_more_ready_than_are_wanted():
    def shared(surplus: int):
        """All KV cache of the pool, shared by what is ready and some that nobody ordered."""

        def spoil(seen: PoolObservation) -> PoolObservation:
            ready = [each for each in seen.replicas if each.phase is Phase.READY]
            more = [replace(ready[0], name=f"surplus-{number}") for number in range(surplus)]
            tokens = 1e6 / (len(ready) + surplus)
            paced = {"decode_step_s": 0.0165, "decoding_context_tokens": tokens}
            ready = [replace(each, **paced) for each in (*ready, *more)]
            return replace(seen, replicas=tuple(ready))

        return spoil

    world = World(lambda now: 90.0, scaler=pool_scaler(SETTINGS, KNOWN), replicas=4)
    world.spoil = shared(0)
    world.run(3 * 3600.0)
    wanted = world.plan.replicas
    assert "memory_bandwidth" in world.plan.decided_by
    world.carry_out = lambda plan: None  # the platform replaces one after the other by itself
    world.spoil = shared(2)
    world.run(1800.0)
    assert world.plan.replicas == wanted


def test_no_load_makes_a_shipped_profile_look_busier_than_its_shares_of_the_peak():
    latency = profile("h100-llama-3.1-8b").latency
    figures = EngineFigures(latency, 438_880).priced_by(latency)
    for batch in (1, 32, 256):
        tokens = min(batch * 2000.0, 438_880.0)
        shown = {
            "decode_step_s": latency.step_s(batch, tokens),
            "decoding_context_tokens": tokens,
        }
        use = memory_use(view_of(load=3.0, figures=figures, replica=shown))
        assert use.ratio is not None
        assert 0.5 < use.ratio < 0.75
