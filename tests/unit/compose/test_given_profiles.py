"""Profiles where commands take them: a file or a name, and what is wrong in one line."""

from pathlib import Path

import pytest

from headrace.cli import main

WITHOUT_KV = '{"name": "x", "per_step_s": 0.01, "per_prefill_token_s": 1e-4}'
SIMULATE = ("simulate", "--traffic", "single_shots:requests=5,rate=1")


@pytest.mark.parametrize("command", [("up",), ("engine",), SIMULATE])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.yaml", "nowhere.yaml: cannot be read"),
        ("h100-llama-3.1-8", "did you mean 'h100-llama-3.1-8b'"),
    ],
)
def test_no_such_profile(
    command: tuple[str, ...], given: str, message: str, capsys: pytest.CaptureFixture[str]
):
    assert main([*command, "--profile", given]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("command", [("engine",), SIMULATE])
def test_nobody_tells_the_kv_cache(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "x.json"
    file.write_text(WITHOUT_KV)
    assert main([*command, "--profile", str(file)]) == 2
    assert "does not tell kv_capacity_tokens" in capsys.readouterr().err


def test_kv_tokens_stand_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "x.json"
    file.write_text(WITHOUT_KV)
    options = ("--kv-tokens", "100000", "--policies", "round_robin", "--replicas", "1")
    assert main([*SIMULATE, "--profile", str(file), *options]) == 0
    assert "5 requests" in capsys.readouterr().out


def test_kv_tokens_without_a_profile_say_nothing(capsys: pytest.CaptureFixture[str]):
    assert main(["engine", "--kv-tokens", "1000"]) == 2
    assert "--kv-tokens needs an engine that is modelled" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("engine",), SIMULATE])
@pytest.mark.parametrize("measured", [False, True])
def test_a_kv_cache_of_less_than_a_block_is_refused_under_its_own_name(
    command: tuple[str, ...], measured: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "x.json"
    file.write_text(WITHOUT_KV)
    profile = str(file) if measured else "h100-llama-3.1-8b"
    assert main([*command, "--profile", profile, "--kv-tokens", "10"]) == 2
    assert capsys.readouterr().err == (
        "headrace: --kv-tokens is 10; give at least one block of the KV cache, 16 tokens\n"
    )
