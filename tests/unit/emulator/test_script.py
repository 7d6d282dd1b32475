"""The scripted timing source on a clock of the test's own."""

import math
from pathlib import Path

import pytest

from headrace.compose.engine import Modelled, parse_script, timing_of
from headrace.config.profile_file import save
from headrace.emulator.script import Script, ScriptedTiming
from headrace.emulator.timing import Generation
from headrace.engine_model.measured import MeasuredProfile


class Ignored:
    def token(self, now: float) -> None:
        raise AssertionError("the timing source tells its driver, not the answer")

    def abort(self) -> None:
        raise AssertionError("a timing source aborts nothing")


def generation(*, output_tokens: int, submitted_s: float = 0.0) -> Generation:
    return Generation(
        Ignored(), prompt_tokens=100, output_tokens=output_tokens, submitted_s=submitted_s
    )


def timing(**script: float) -> ScriptedTiming:
    return ScriptedTiming(Script(**script), kv_capacity_tokens=1000)


def token_times(source: ScriptedTiming) -> list[tuple[float, Generation]]:
    """Advance from wake to wake, as a driver that is never late does."""
    times: list[tuple[float, Generation]] = []
    while (now := source.wake_s()) != math.inf:
        times += [(now, each) for each in source.advance(now)]
    return times


def test_first_token_after_ttft_then_one_per_itl():
    source = timing(ttft_s=0.5, itl_s=0.125)
    each = generation(output_tokens=3)
    source.submit(each, 10.0)
    assert [now for now, _ in token_times(source)] == [10.5, 10.625, 10.75]
    assert each.done


def test_generations_do_not_disturb_each_other():
    source = timing(ttft_s=1.0, itl_s=0.25)
    early, late = generation(output_tokens=8), generation(output_tokens=2)
    source.submit(early, 0.0)
    source.submit(late, 0.375)
    times = token_times(source)
    assert [now for now, each in times if each is late] == [1.375, 1.625]
    assert [now for now, each in times if each is early] == [1 + 0.25 * n for n in range(8)]


def test_a_generation_gets_one_token_per_call_however_late_it_is():
    source = timing(ttft_s=0.1, itl_s=0.0)
    each = generation(output_tokens=3)
    source.submit(each, 0.0)
    for produced in (1, 2, 3):
        assert source.wake_s() <= 5.0
        assert source.advance(5.0) == [each]
        assert each.produced == produced
    assert source.wake_s() == math.inf


def test_a_stall_is_not_made_up_for():
    source = timing(ttft_s=1.0, itl_s=1.0)
    source.submit(generation(output_tokens=10), 0.0)
    source.advance(7.5)
    assert source.wake_s() == 7.5
    source.advance(7.5)
    assert source.wake_s() == 8.5


def test_a_cancelled_generation_gets_nothing_more():
    source = timing(ttft_s=1.0, itl_s=1.0)
    gone, stays = generation(output_tokens=9), generation(output_tokens=2)
    source.submit(gone, 0.0)
    source.submit(stays, 0.0)
    assert set(source.advance(1.0)) == {gone, stays}
    source.cancel(gone)
    source.cancel(gone)
    assert [each for _, each in token_times(source)] == [stays]
    assert gone.produced == 1


def test_occupancy_counts_what_runs_and_the_tokens_it_holds():
    source = timing(ttft_s=1.0, itl_s=1.0)
    each = generation(output_tokens=2)
    source.submit(each, 0.0)
    assert source.occupancy().running == 1
    assert source.occupancy().kv_usage_ratio == pytest.approx(0.1)
    source.advance(1.0)
    assert source.occupancy().kv_usage_ratio == pytest.approx(0.101)
    source.cancel(each)
    assert source.occupancy().running == 0
    assert source.occupancy().kv_usage_ratio == 0


def test_a_script_is_read_in_units_people_write():
    assert parse_script("ttft=50ms,itl=1.5ms") == Script(ttft_s=0.05, itl_s=0.0015)
    assert parse_script("itl=0ms") == Script(itl_s=0.0)


def test_options_say_how_answers_are_timed():
    assert timing_of(None, None, None, None) == Script()
    assert timing_of("itl=0ms", None, None, None) == Script(itl_s=0.0)
    modelled = timing_of(None, "l40s-llama-3.1-8b", 4.0, 5557)
    assert isinstance(modelled, Modelled)
    assert modelled.spec.latency.name == "l40s-llama-3.1-8b"
    assert (modelled.speed, modelled.kv_events_port) == (4.0, 5557)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("itl=0ms", "h100-llama-3.1-8b", None, None), "--script and --profile"),
        ((None, None, 2.0, None), "--time-scale needs.*--profile"),
        ((None, None, None, 5557), "--kv-events needs.*--profile"),
        ((None, "h100", None, None), "no profile 'h100'"),
    ],
)
def test_options_that_contradict_each_other(
    options: tuple[str | None, str | None, float | None, int | None], said: str
):
    with pytest.raises(ValueError, match=said):
        timing_of(*options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tpot=5ms", "'tpot=5ms' is not known; give ttft and itl"),
        ("ttft=soon", "ttft must be a duration such as 500ms"),
        ("itl=-1", "itl must be 0 or more"),
        ("itl=1s,ttft=1s,itl=2s", "itl is given twice"),
        ("", "'' is not known"),
    ],
)
def test_a_wrong_script_says_what_is_wrong(text: str, said: str):
    with pytest.raises(ValueError, match=said):
        parse_script(text)


def test_an_engine_of_a_measured_profile_takes_as_long_a_context_as_the_measured_one(
    tmp_path: Path,
):
    file = tmp_path / "measured.yaml"
    known = MeasuredProfile(
        "x", 0.01, 1e-4, max_context_tokens=2048, kv_capacity_tokens=8192, max_sequences=4
    )
    save(file, known)
    timing = timing_of(None, str(file), None, None)
    assert isinstance(timing, Modelled)
    assert timing.settings("m", 128).max_context_tokens == 2048
