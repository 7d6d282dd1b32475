"""A real vLLM under load: clients that leave, a full engine, answers that take long."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.acceptance.serving import Figures, figures, tokens
from tests.acceptance.vllm_server import MAX_SEQUENCES, VllmServer
from tests.live.up import HANG_S, Up

pytestmark = [pytest.mark.acceptance, pytest.mark.vllm, pytest.mark.timeout(900)]

LONG = {"max_tokens": 1500, "ignore_eos": True}
HELLO = [{"role": "user", "content": "Say hello in five words."}]


def test_tokens_are_counted_while_they_stream(vllm_gateway: Up, vllm):
    before = figures(vllm_gateway)
    with stream_of(vllm_gateway, vllm, **LONG) as answer:
        lines = answer.iter_lines()
        relayed = 0
        while relayed < 100:
            relayed += '"content":"' in next(lines)
        time.sleep(1.0)  # the counter may be so late
        live = figures(vllm_gateway)
    assert tokens(live, "output") - tokens(before, "output") >= 100
    assert tokens(live, "input") == tokens(before, "input")
    until(lambda: engine_running(vllm) == 0, "the engine still works for a client that has left")


def test_a_client_that_leaves_frees_the_engine(vllm_gateway: Up, vllm):
    before = figures(vllm_gateway)
    with stream_of(vllm_gateway, vllm, **LONG) as answer:
        lines = answer.iter_lines()
        while '"content":"' not in next(lines):
            pass
        until(lambda: engine_running(vllm) == 1, "the engine shows no running request")
    left_s = time.monotonic()
    until(lambda: engine_running(vllm) == 0, "the engine still works for a client that has left")
    print(f"freed within {time.monotonic() - left_s:.2f} s")
    after = figures(vllm_gateway)
    name = "headrace_requests_total"
    assert after.total(name, outcome="aborted") - before.total(name, outcome="aborted") == 1
    name = "headrace_aborted_output_tokens_total"
    assert 0 < after.total(name) - before.total(name) < LONG["max_tokens"]


def test_a_client_that_gives_up_on_a_whole_answer_frees_the_engine(vllm_gateway: Up, vllm):
    before = figures(vllm_gateway)
    body = {"model": vllm.model_id, "messages": HELLO, **LONG}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{vllm_gateway.url}/v1/chat/completions", json=body, timeout=2.0, trust_env=False
        )
    until(lambda: engine_running(vllm) == 0, "the engine still works for a client that has left")
    after = figures(vllm_gateway)
    name = "headrace_requests_total"
    assert after.total(name, outcome="aborted") - before.total(name, outcome="aborted") == 1
    assert tokens(after, "output") == tokens(before, "output")


def stream_of(gateway: Up, vllm: VllmServer, **options: object):
    """A chat answer, streamed."""
    body = {"model": vllm.model_id, "messages": HELLO, "stream": True, **options}
    url = f"{gateway.url}/v1/chat/completions"
    return httpx.stream("POST", url, json=body, timeout=HANG_S, trust_env=False)


def engine_running(vllm: VllmServer) -> float:
    """Requests that the engine says it runs."""
    return Figures(vllm.metrics()).total("vllm:num_requests_running")


def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait for a condition."""
    guard = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < guard, otherwise
        time.sleep(0.05)


def test_queue_running_and_kv_usage_of_a_full_engine(vllm_gateway: Up, vllm):
    waiting = 4
    with streams_open(vllm_gateway, vllm, MAX_SEQUENCES + waiting):

        def is_full() -> bool:
            # On its way there a busy engine has as many waiting and fewer running.
            seen = figures(vllm_gateway)
            queue = seen.total("llm_queue_depth", model_id=vllm.model_id)
            return (queue, seen.total("llm_requests_running")) == (waiting, MAX_SEQUENCES)

        until(is_full, f"never {waiting} queued and {MAX_SEQUENCES} running")
        until(
            lambda: figures(vllm_gateway).total("llm_kv_cache_usage_ratio") > 0,
            "no KV usage was exported",
        )
        ratio = figures(vllm_gateway).total("llm_kv_cache_usage_ratio")
        print(f"full: {waiting} wait, {MAX_SEQUENCES} run, KV usage {ratio:.4f}")
        assert 0 < ratio <= 1
        assert figures(vllm_gateway).values("headrace_engine_gauges_estimated") == [0.0]
    for name in ("llm_queue_depth", "llm_requests_running", "llm_kv_cache_usage_ratio"):
        until(lambda name=name: figures(vllm_gateway).total(name) == 0, f"{name} stays above 0")


def test_how_many_it_runs_side_by_side_is_learned(vllm_gateway: Up, vllm):
    """It does not tell its `--max-num-seqs`."""
    begun_s = time.monotonic()
    with answers_in_turn(vllm_gateway, vllm, MAX_SEQUENCES + 6):
        until(
            lambda: known_limit(vllm_gateway) is not None, "no limit was learned of a full engine"
        )
        print(f"learned within {time.monotonic() - begun_s:.1f} s: {known_limit(vllm_gateway)}")
        for _ in range(20):
            assert known_limit(vllm_gateway) == (MAX_SEQUENCES, True)
            time.sleep(0.5)


def known_limit(gateway: Up) -> tuple[object, object] | None:
    """What the gateway knows of how many run side by side, and whether that was learned."""
    (replica,) = gateway.fleet().values()
    limit = replica["max_sequences"]
    return None if limit is None else (limit, replica["max_sequences_learned"])


@contextlib.contextmanager
def answers_in_turn(gateway: Up, vllm: VllmServer, clients: int) -> Iterator[None]:
    """So many clients that each ask for one short answer after the other."""
    leave = threading.Event()

    def ask() -> None:
        while not leave.is_set():
            with stream_of(gateway, vllm, max_tokens=40, ignore_eos=True) as answer:
                answer.read()

    with at_once(ask, clients, leave):
        yield


@contextlib.contextmanager
def streams_open(gateway: Up, vllm: VllmServer, count: int) -> Iterator[None]:
    """So many long answers at once, given up at the end."""
    leave = threading.Event()

    def read() -> None:
        with stream_of(gateway, vllm, **LONG) as answer:
            lines = answer.iter_lines()
            # A waiting request has no first byte: its client leaves by closing, not by reading.
            while not leave.is_set() and next(lines, None) is not None:
                pass

    with at_once(read, count, leave):
        yield


@contextlib.contextmanager
def at_once(client: Callable[[], None], count: int, leave: threading.Event) -> Iterator[None]:
    """So many clients that go when they are told to leave."""
    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        leave.set()
        for thread in threads:
            thread.join(HANG_S)
        assert not any(thread.is_alive() for thread in threads)
