"""Profile files: written, read back, and refused with the line that is wrong."""

from pathlib import Path

import pytest

from headrace.config.document import ConfigError
from headrace.config.load import load
from headrace.config.modelled_engine import engine_of
from headrace.config.profile_file import (
    latency_of,
    load_measured,
    load_profile,
    profile_text,
    save,
)
from headrace.engine_model.measured import (
    Interval,
    MeasuredProfile,
    Provenance,
    Residuals,
    prefill_steps,
)
from headrace.engine_model.profiles import profile

FULL = MeasuredProfile(
    "laptop",
    0.004,
    1e-5,
    1e-9,
    0.0,
    1.2345e-7,
    source="calibrated 2026-11-25",
    request_overhead_s=0.00098,
    prefill_step_tokens=512,
    max_context_tokens=4096,
    kv_capacity_tokens=16_384,
    kv_block_tokens=32,
    max_sequences=4,
    memory_bytes_per_s=3.35e12,
    weight_bytes_per_step=1.5e10,
    kv_bytes_per_token=131_072.0,
    intervals={
        "per_step_s": Interval(0.0039, 0.0041),
        "per_sequence_s": Interval(0.0, 2e-5, "not told from 0: taken for 0"),
    },
    residuals=Residuals(24, 0.01, 0.05, 1.2, "prefill 48"),
    measured=Provenance("2026-11-25T22:00:00Z", "m: 1.10", "llamacpp", machine="CPU, 2 × no"),
)


def test_what_is_written_is_read_back(tmp_path: Path):
    file = tmp_path / "laptop.yaml"
    save(file, FULL)
    assert load_measured(file) == FULL
    assert load_profile(file) == FULL.latency
    assert "per_prefill_token_s: 1.0e-05" in file.read_text()
    assert "# 10 µs: a prompt token not cached" in file.read_text()


def test_the_coefficients_alone_are_enough(tmp_path: Path):
    file = tmp_path / "short.json"
    file.write_text('{"name": "short", "per_step_s": 0.01, "per_prefill_token_s": 1e-4}')
    found = load_measured(file)
    assert found.latency.source == "profile short"
    assert found.ttft_s(1000) == pytest.approx(0.11)
    assert load_measured(_written(tmp_path, profile_text(found))) == MeasuredProfile(
        "short", 0.01, 1e-4, source="profile short"
    )


def _written(folder: Path, text: str) -> Path:
    file = folder / "again.yaml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nper_step_s: 0.1\n", "per_prefill_token_s: is missing"),
        ("name: x\nper_step_s: 0.1\nper_prefil_token_s: 1\n", "did you mean `per_prefill_token_s`"),
        ("name: x\nper_step_s: -1\nper_prefill_token_s: 1\n", "line 2: per_step_s: is -1"),
        ("name: x\nper_step_s: 1\nper_prefill_token_s: 0\n", "are both 0"),
        ("[]", "expected a mapping"),
        (
            "name: x\nper_step_s: 14\nper_prefill_token_s: 1.0e-5\n",
            "per_step_s: is 14 s, and no engine takes more than 10 s for a step: write seconds",
        ),
    ],
)
def test_a_file_that_is_wrong_says_where(text: str, message: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=message):
        load_measured(_written(tmp_path, text))


def test_a_prompt_takes_several_steps():
    assert [prefill_steps(n, 512) for n in (1, 512, 513, 1500)] == [1, 1, 2, 3]
    assert prefill_steps(10**6, None) == 1
    alone = FULL.latency.prefill_s(1500, 100)
    assert FULL.ttft_s(1500, 100) == pytest.approx(0.00098 + alone + 2 * 0.004)


def test_the_engine_that_a_file_describes(tmp_path: Path):
    file = tmp_path / "laptop.yaml"
    save(file, FULL)
    engine = engine_of(str(file))
    assert engine.latency == FULL.latency
    assert (engine.kv_capacity_tokens, engine.kv_block_tokens) == (16_384, 32)
    assert (engine.max_sequences, engine.max_batched_tokens) == (4, 512)
    assert engine_of(str(file), 999_936).kv_capacity_tokens == 999_936
    assert engine_of("h100-qwen3-32b-tp2", 4096).gpus == 2
    assert engine_of("h100-qwen3-32b-tp2") == profile("h100-qwen3-32b-tp2")


def test_nobody_knows_the_kv_cache(tmp_path: Path):
    file = _written(tmp_path, "{name: x, per_step_s: 0.1, per_prefill_token_s: 0.01}")
    with pytest.raises(ValueError, match=r"does not tell kv_capacity_tokens.*--kv-tokens"):
        engine_of(str(file))


def test_without_a_limit_that_shows_the_longest_prompt_is_one_step():
    long = MeasuredProfile("x", 0.1, 0.01, max_context_tokens=100_000, kv_capacity_tokens=10**6)
    assert long.engine().max_batched_tokens == long.engine().max_context_tokens == 100_000


def test_a_name_that_is_neither():
    with pytest.raises(ValueError, match=r"did you mean 'h100-llama-3.1-8b'.*or name a file"):
        latency_of("h100-llama-3.1-8")


def test_a_pool_takes_a_file_beside_its_configuration(tmp_path: Path):
    save(tmp_path / "laptop.yaml", FULL)
    config = tmp_path / "headrace.yaml"
    config.write_text(
        "pools: [{name: p, model: m, replicas: ['http://e:1'], profile: ./laptop.yaml}]"
    )
    (pool,) = load(config).config.pools
    assert pool.profile == FULL.latency
