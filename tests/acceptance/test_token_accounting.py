"""Token counters against what engines say: per request to its client, and in their own totals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx
import pytest
from rich.console import Console
from rich.table import Table

from tests.acceptance.clients import leave_after
from tests.acceptance.serving import Figures, figures
from tests.acceptance.token_load import Ask, Told, plan, run
from tests.acceptance.vllm_server import VllmServer
from tests.live.up import HANG_S, Up, running_up

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]

MODEL = "smollm2-135m-instruct"
CHUNK_AND_STEP = 2
"""Tokens that an aborted stream may be counted above what was relayed: one chunk and one step of
the engine, which hold a token each where nothing is drafted."""


@dataclass(frozen=True)
class Totals:
    """Tokens counted so far, by one who counts."""

    input: float
    output: float
    cached: float
    aborted_output: float = 0.0

    def since(self, before: Totals) -> Totals:
        """What came since."""
        return Totals(
            self.input - before.input,
            self.output - before.output,
            self.cached - before.cached,
            self.aborted_output - before.aborted_output,
        )


def gateway_totals(gateway: Up) -> Totals:
    """What the gateway exports."""
    now = figures(gateway)
    return Totals(
        input=now.total("llm_tokens_processed_total", token_type="input"),
        output=now.total("llm_tokens_processed_total", token_type="output"),
        cached=now.total("llm_cached_input_tokens_total"),
        aborted_output=now.total("headrace_aborted_output_tokens_total"),
    )


def llamacpp_totals(gateway: Up) -> Totals:
    """What the replicas of `headrace up` export, added up."""
    texts = [
        httpx.get(f"{replica['url']}/metrics", trust_env=False).text
        for replica in gateway.fleet().values()
    ]
    names = ("prompt_tokens_total", "tokens_predicted_total", "prompt_tokens_cached_total")
    read, predicted, cached = (
        sum(Figures(text).total(f"llamacpp:{name}") for text in texts) for name in names
    )
    return Totals(input=read + cached, output=predicted, cached=cached)


def vllm_totals(server: VllmServer) -> Totals:
    """What vLLM exports."""
    now = Figures(server.metrics())
    return Totals(
        input=now.total("vllm:prompt_tokens_total"),
        output=now.total("vllm:generation_tokens_total"),
        cached=now.total("vllm:prompt_tokens_cached_total"),
    )


@dataclass
class Subject:
    """A gateway with real engines behind it."""

    gateway: Up
    engine_totals: Callable[[], Totals]

    def measure(self, asks: Sequence[Ask], *, seed: int) -> Measured:
        """Send the load; say what everybody counted."""
        gateway_before, engine_before = gateway_totals(self.gateway), self.engine_totals()
        begun_s = time.monotonic()
        told = asyncio.run(run(self.gateway.url, MODEL, asks, seed=seed))
        took_s = time.monotonic() - begun_s
        self.wait_idle()
        return Measured(
            asks,
            told,
            gateway_totals(self.gateway).since(gateway_before),
            self.engine_totals().since(engine_before),
            took_s,
        )

    def wait_idle(self) -> None:
        """Until nothing runs any more, here and in the engines."""
        guard = time.monotonic() + HANG_S
        while True:
            now = figures(self.gateway)
            running = now.total("headrace_requests_in_flight") + now.total("llm_requests_running")
            if not running and not now.total("llm_queue_depth"):
                return
            assert time.monotonic() < guard, "requests are still running"
            time.sleep(0.2)


@dataclass(frozen=True)
class Measured:
    """One load, as its clients, the gateway and the engines counted it."""

    asks: Sequence[Ask]
    told: list[Told]
    gateway: Totals
    engines: Totals
    took_s: float

    def clients(self, *, left: bool) -> tuple[int, int, int]:
        """Of the requests that were completed, or left: their number, input and output."""
        told = [
            each
            for ask, each in zip(self.asks, self.told, strict=True)
            if (ask.leaves_after_chunks is not None) == left
        ]
        return (
            len(told),
            sum(each.input_tokens or 0 for each in told),
            sum(each.output_tokens for each in told),
        )

    def show(self, title: str) -> None:
        """Print who counted what."""
        number, input_tokens, output_tokens = self.clients(left=False)
        left, _, relayed = self.clients(left=True)
        table = Table(title=f"{title}: {len(self.asks)} requests in {self.took_s:.0f} s")
        for heading in ("counted by", "input", "cached", "output"):
            table.add_column(heading, justify="left" if heading == "counted by" else "right")
        gateway, engines = self.gateway, self.engines
        completed_output = gateway.output - gateway.aborted_output
        rows: list[tuple[str, float | None, float | None, float]] = [
            (f"clients, usage of {number} completed", input_tokens, None, output_tokens),
            (f"clients, chunks of {left} left early", None, None, relayed),
            ("gateway, completed", None, None, completed_output),
            ("gateway, left early", None, None, gateway.aborted_output),
            ("gateway, all", gateway.input, gateway.cached, gateway.output),
            ("engines' own totals", engines.input, engines.cached, engines.output),
            (
                "gateway - engines",
                gateway.input - engines.input,
                gateway.cached - engines.cached,
                gateway.output - engines.output,
            ),
        ]
        for name, *values in rows:
            table.add_row(name, *("" if value is None else f"{value:,.0f}" for value in values))
        Console(width=100).print(table)


@pytest.fixture(scope="module")
def llamacpp(path_without_compilers: str) -> Iterator[Subject]:
    with running_up(path=path_without_compilers) as gateway:
        yield Subject(gateway, lambda: llamacpp_totals(gateway))


@pytest.fixture
def vllm_subject(vllm: VllmServer, vllm_gateway: Up) -> Subject:
    return Subject(vllm_gateway, lambda: vllm_totals(vllm))


@pytest.fixture(params=["llamacpp", pytest.param("vllm", marks=pytest.mark.vllm)])
def subject(request: pytest.FixtureRequest) -> Subject:
    return request.getfixturevalue({"llamacpp": "llamacpp", "vllm": "vllm_subject"}[request.param])


@pytest.fixture
def size(subject: Subject, request: pytest.FixtureRequest) -> int:
    """How many requests complete."""
    return 504 if "llamacpp" in request.node.name else 60


def test_counters_of_completed_requests_are_their_usage(subject: Subject, size: int):
    measured = subject.measure(plan(size, 0, seed=1), seed=2)
    measured.show("all completed")
    number, input_tokens, output_tokens = measured.clients(left=False)
    assert number == size
    assert measured.gateway.output == output_tokens
    assert measured.gateway.input == input_tokens
    assert measured.gateway.aborted_output == 0
    assert measured.engines.output == output_tokens
    assert measured.engines.input == input_tokens
    assert measured.gateway.cached == measured.engines.cached


def test_counters_with_clients_that_leave(subject: Subject, size: int):
    leaving = max(10, size // 20)
    measured = subject.measure(plan(size, leaving, seed=3), seed=4)
    measured.show("5 % left early")
    left, _, relayed = measured.clients(left=True)
    assert left == leaving
    gateway = measured.gateway
    assert gateway.output - gateway.aborted_output == measured.clients(left=False)[2]
    assert relayed <= gateway.aborted_output <= relayed + CHUNK_AND_STEP * left
    # Engines also count what they made before they heard that the client had left.
    assert gateway.output <= measured.engines.output


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
@pytest.mark.parametrize("chunks", [0, 1, 40])
def test_one_client_that_leaves(subject: Subject, endpoint: str, chunks: int):
    ask = Ask(endpoint, "Tell a long story", 600, streamed=True, leaves_after_chunks=chunks)
    gateway_before, engine_before = gateway_totals(subject.gateway), subject.engine_totals()
    relayed = asyncio.run(
        leave_after(subject.gateway.url, endpoint, ask.body(MODEL), chunks=chunks)
    )
    subject.wait_idle()
    gateway = gateway_totals(subject.gateway).since(gateway_before)
    engines = subject.engine_totals().since(engine_before)
    print(
        f"{relayed} chunks relayed, {gateway.aborted_output:.0f} tokens counted, "
        f"{engines.output:.0f} in the engine's own total"
    )
    assert gateway.output == gateway.aborted_output
    assert relayed <= gateway.aborted_output <= relayed + CHUNK_AND_STEP
    assert gateway.output <= engines.output
