"""`headrace serve -c FILE` as a user runs it, and what its `/metrics` say."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.live.up import HANG_S, Up, command, free_port


@contextmanager
def running_serve(
    config: str, folder: Path, *, env: Mapping[str, str] | None = None, name: str = "headrace"
) -> Iterator[Up]:
    """Start `headrace serve` with this YAML on free ports and wait until it takes requests."""
    port, control = free_port(), free_port()
    file = folder / f"{name}.yaml"
    file.write_text(config)
    log = folder / f"{name}.log"
    line = command("serve", "-c", str(file), "--port", str(port), "--control-port", str(control))
    with log.open("wb+") as output:
        process = subprocess.Popen(
            line, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
        gateway = Up(process, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{control}", output)
        try:
            _wait_ready(gateway)
            yield gateway
        finally:
            if process.poll() is None:
                gateway.stop(signal.SIGTERM)


def _wait_ready(gateway: Up) -> None:
    guard = time.monotonic() + HANG_S
    while True:
        assert gateway.process.poll() is None, gateway.printed
        assert time.monotonic() < guard, gateway.printed
        try:
            if httpx.get(f"{gateway.url}/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)


class Figures:
    """One reading of a Prometheus text."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def total(self, name: str, **labels: str) -> float:
        """Sum over the samples of this name that carry these labels; 0 where there is none."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def values(self, name: str) -> list[float]:
        """Every sample of this name."""
        return [sample.value for sample in self._samples if sample.name == name]


def figures(gateway: Up) -> Figures:
    """What the control plane exports now."""
    return Figures(gateway.metrics())


def tokens(reading: Figures, kind: str) -> float:
    """Tokens counted so far."""
    return reading.total("llm_tokens_processed_total", token_type=kind)
