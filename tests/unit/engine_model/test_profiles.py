"""Profiles against published figures of models, GPUs and engines."""

import pytest

from headrace.engine_model import EngineModel, FirstToken, Job
from headrace.engine_model.derivation import derive
from headrace.engine_model.gpus import GPUS
from headrace.engine_model.models import MODELS
from headrace.engine_model.profiles import describe, profile, profile_names


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.3-70b", 70_553_706_496),
        ("qwen3-32b", 32_762_123_264),
        ("qwen3-30b-a3b", 30_532_122_624),
    ],
)
def test_shapes_have_the_published_number_of_parameters(model: str, parameters: int):
    assert MODELS[model].parameters == parameters


def test_a_mixture_passes_as_many_parameters_as_its_card_says():
    model = MODELS["qwen3-30b-a3b"]
    assert (model.passed_parameters + 2 * model.embedding_parameters) / 1e9 == pytest.approx(
        3.3, abs=0.06
    )


def test_every_pair_is_shipped_under_the_names_of_the_issue():
    names = profile_names()
    assert len(names) == len(GPUS) * len(MODELS) == 20
    wanted = {
        "h100-llama-3.1-8b",
        "h100-llama-3.3-70b-tp4",
        "h100-qwen3-32b-tp2",
        "h100-qwen3-30b-a3b",
    }
    assert wanted < set(names)


@pytest.mark.parametrize("name", profile_names())
def test_each_serves_and_tells_where_its_figures_come_from(name: str):
    spec = profile(name)
    assert spec.latency.name == name
    assert spec.latency.source == f"profile {name}"
    model = EngineModel(spec)
    model.submit(Job(1, 8000, 10), 0.0)
    first, last = (each for each in model.advance(1e6))
    assert isinstance(first, FirstToken)
    assert first.at_s < last.at_s
    text = describe(name)
    assert text.startswith(f"{name}: ")
    assert "data sheet" in text
    assert "config.json" in text


@pytest.mark.parametrize(
    ("name", "peak", "weights", "kv"),
    [
        # Data sheets; parameters less the input embedding; 2 * layers * KV heads * 128 * 2 bytes.
        ("h100-llama-3.1-8b", 3.35e12, 2 * (8.030e9 - 0.525e9), 131_072),
        ("h200-llama-3.3-70b-tp4", 4 * 4.8e12, 2 * (70.554e9 - 1.051e9), 327_680),
        ("l4-llama-3.3-70b-tp8", 8 * 300e9, 2 * (70.554e9 - 1.051e9), 327_680),
    ],
)
def test_what_the_memory_of_a_replica_moves_is_of_all_its_gpus(
    name: str, peak: float, weights: float, kv: int
):
    latency = profile(name).latency
    assert latency.memory_bytes_per_s == pytest.approx(peak)
    assert latency.weight_bytes_per_step == pytest.approx(weights, rel=1e-3)
    assert latency.kv_bytes_per_token == kv


def test_kv_capacity_of_an_8b_model_on_an_h100():
    """DESIGN.md's studies use 420k tokens at a memory utilisation of 0.9."""
    assert profile("h100-llama-3.1-8b").kv_capacity_tokens == pytest.approx(420_000, rel=0.06)


def test_prefill_of_qwen3_32b_on_two_h100():
    """llm-d publishes a peak of 15,928 tokens a second."""
    spec = profile("h100-qwen3-32b-tp2")
    assert 8192 / spec.latency.prefill_s(8192) == pytest.approx(15_928, rel=0.06)


def test_a_token_of_an_8b_model_alone_on_an_h100_takes_7_to_8_ms():
    assert 0.0065 < profile("h100-llama-3.1-8b").latency.step_s(1, 1000) < 0.008


def test_more_memory_bandwidth_and_more_gpus_are_faster():
    def token_s(name: str) -> float:
        return profile(name).latency.step_s(8, 8 * 4000)

    order = ["h200", "h100", "a100-80g", "l40s", "l4"]
    times = [token_s(f"{gpu}-llama-3.1-8b") for gpu in order]
    assert times == sorted(times)
    assert token_s("h100-llama-3.3-70b-tp8") < token_s("h100-llama-3.3-70b-tp4")


def test_a_model_that_does_not_fit_is_refused_and_shipped_on_more_gpus():
    with pytest.raises(ValueError, match=r"does not fit.*35\.3 GB.*each of 4 NVIDIA L4"):
        profile("l4-llama-3.3-70b-tp4")
    assert "l4-llama-3.3-70b-tp8" in profile_names()
    with pytest.raises(ValueError, match="cannot be split over 3 GPUs"):
        derive(GPUS["h100"], MODELS["llama-3.3-70b"], 3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("h100-lama-3.1-8b", "did you mean 'h100-llama-3.1-8b'"),
        ("b300", "no profile 'b300'; known are h100-llama-3.1-8b, "),
        ("h100-llama-3.1-8b-tp16", "up to 8 GPUs"),
        ("h100-llama-3.1-8b-tp0", "no profile"),
    ],
)
def test_an_unknown_name_lists_the_known(name: str, said: str):
    with pytest.raises(ValueError, match=said):
        profile(name)


def test_kv_heads_are_not_split():
    model = MODELS["qwen3-30b-a3b"]
    assert model.kv_bytes_per_token(8) == model.kv_bytes_per_token(4)
    assert model.kv_bytes_per_token(2) == 2 * model.kv_bytes_per_token(4)
