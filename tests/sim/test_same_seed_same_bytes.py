"""The same seed gives the same JSON to the byte, in any process and in any number of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hash_seeds import printed
from tests.unit.simulator.parts import trace

FLAGS = ("--replicas", "4", "--mismatch", "0.3", "--seed", "5", "--speed", "2", "--json")
ALL_KINDS = "seconds,power_of_two,prefix_hash,sglang_cache_aware,pooled_reference"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conversations of other tests in Mooncake's format."""
    path = tmp_path_factory.mktemp("traces") / "made.jsonl"
    lines = [
        json.dumps(
            {
                "timestamp": int(request.arrival_s * 1000),
                "input_length": request.input_tokens,
                "output_length": request.output_tokens,
                "hash_ids": request.blocks,
            }
        )
        for request in trace(200).requests
    ]
    path.write_text("\n".join(lines))
    return path


def simulated(file: Path, hash_seed: str, *more: str) -> bytes:
    command = ("-m", "headrace", "simulate", "--trace", file, *FLAGS)
    return printed(*command, *more, hash_seed=hash_seed)


@pytest.mark.parametrize("index", ["approximate", "exact"])
def test_in_any_process(file, index):
    flags = ("--policies", ALL_KINDS, "--index", index)
    once = simulated(file, "0", *flags, "--jobs", "1")
    assert simulated(file, "0", *flags, "--jobs", "1") == once
    assert simulated(file, "12345", *flags, "--jobs", "2") == once
    runs = json.loads(once)["runs"]
    assert [run["policy"] for run in runs] == ALL_KINDS.split(",")
    assert json.loads(once)["seed"] == 5
    assert {run["completed"] for run in runs} == {200}


def test_another_seed_is_another_run(file):
    flags = ("--policies", "power_of_two,seconds", "--jobs", "1")
    assert simulated(file, "0", *flags) != simulated(file, "0", *flags, "--seed", "6")
