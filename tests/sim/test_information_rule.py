"""A policy sees what a gateway sees: never an engine's true state, nor how long an answer will be.

Three ways to be sure: whatever the core could reach of the future or of an engine raises when the
core touches it; nothing of that kind can be reached from the core at all; and a future that
changes changes no decision before it is seen.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

import pytest

from headrace.core.candidates import Ask, Candidate, Scope, candidates_at
from headrace.core.dispatcher import Dispatcher
from headrace.core.events import Arrived, Dispatch
from headrace.core.model import Replica, Request
from headrace.core.policies import POLICIES
from headrace.engine_model import EngineModel, Job
from headrace.engine_model.sequence import Sequence
from headrace.simulator import driver
from headrace.simulator.driver import Simulation
from headrace.simulator.results import COMPLETED
from headrace.traffic.trace import TraceRequest
from tests.unit.simulator.parts import ENGINE, listen, play, trace

SMALL = replace(ENGINE, kv_capacity_tokens=30_720)
"""Caches that overflow, so that policies have reason to peek."""


class Leak(Exception):
    """The core touched what no gateway knows."""


def refuse_the_core() -> None:
    """Raise if the core asked; the simulator's own driver may."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module == driver.__name__:
            return
        if module.startswith("headrace.core"):
            raise Leak(module)
        frame = frame.f_back


class SealedTrace:
    """A trace's request whose answer only the driver may measure."""

    def __init__(self, trace: TraceRequest) -> None:
        self.arrival_s = trace.arrival_s
        self.input_tokens = trace.input_tokens
        self.blocks = trace.blocks
        self._output_tokens = trace.output_tokens

    @property
    def output_tokens(self) -> int:
        refuse_the_core()
        return self._output_tokens


class SealedEngine(EngineModel):
    """An engine that answers the driver alone."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        refuse_the_core()
        return super().__getattribute__(name)


class SealedJob(Job):
    """A job, likewise."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        refuse_the_core()
        return super().__getattribute__(name)


class SealedRequest(Request):
    """What the core is handed, with a future beside it that must not be looked at."""

    @property
    def output_tokens(self) -> int:
        raise Leak("output_tokens")

    @property
    def session(self) -> str:
        raise Leak("session")


@pytest.fixture
def sealed(monkeypatch) -> list[Any]:
    monkeypatch.setattr(driver, "EngineModel", SealedEngine)
    monkeypatch.setattr(driver, "Job", SealedJob)
    monkeypatch.setattr(driver, "Request", SealedRequest)
    return [SealedTrace(request) for request in trace().requests]


@pytest.mark.parametrize("kv_events", [False, True])
@pytest.mark.parametrize("policy", list(POLICIES))
def test_no_policy_touches_what_is_sealed(sealed, policy, kv_events):
    results, _ = play(sealed, policy, engine=SMALL, kv_events=kv_events)
    assert results.state.count(COMPLETED) == len(sealed)


class Peeking:
    """A policy that gets at something it must not see."""

    scope = Scope.ALL
    holds = False
    secret: Any = None

    def price(self, ask: Ask, replicas: list[Replica], now: float) -> list[Candidate]:
        return candidates_at(ask, replicas, [float(self.look()) for _ in replicas], now)

    def look(self) -> int:
        raise NotImplementedError

    def chosen(self, replica: str) -> None:
        pass

    def left(self, replica: str) -> None:
        pass

    def terms(self, candidate: Any) -> tuple[()]:
        return ()


class PeekingAtTheFuture(Peeking):
    def look(self) -> int:
        return self.secret.output_tokens


class PeekingAtTheEngine(Peeking):
    def look(self) -> int:
        return self.secret.waiting


@pytest.mark.parametrize("kind", [PeekingAtTheFuture, PeekingAtTheEngine])
def test_a_policy_that_peeked_would_be_caught(sealed, monkeypatch, kind):
    secret = sealed[0] if kind is PeekingAtTheFuture else SealedEngine(SMALL)
    monkeypatch.setattr(kind, "secret", secret)
    monkeypatch.setitem(POLICIES, "peeking", kind)
    with pytest.raises(Leak):
        play(sealed, "peeking", engine=SMALL)


def test_a_core_that_asked_a_request_for_its_answer_would_be_caught(sealed, monkeypatch):
    def peek(self: Dispatcher, event: Arrived, now: float) -> list[Any]:
        return [event.request.output_tokens]  # type: ignore[attr-defined]

    monkeypatch.setattr(Dispatcher, "_arrived", peek)
    with pytest.raises(Leak):
        play(sealed, engine=SMALL)


FORBIDDEN = (EngineModel, Job, Sequence, TraceRequest, Simulation)


def reachable(roots: Iterable[object]) -> list[object]:
    """Everything that can be reached by attributes and containers; not through code."""
    seen: dict[int, object] = {}
    left = list(roots)
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType):
            continue
        seen[id(each)] = each
        left += gc.get_referents(each)
    return list(seen.values())


@pytest.mark.parametrize("kv_events", [False, True])
def test_nothing_of_it_can_be_reached_from_the_core(monkeypatch, kv_events):
    cores: list[Dispatcher] = []
    checked = 0
    real = Dispatcher.handle

    def handle(core: Dispatcher, event: Any, now: float) -> Any:
        nonlocal checked
        effects = real(core, event, now)
        if isinstance(event, Arrived) and event.request.id in ("r40", "r90"):
            found = reachable([core, event])
            assert not [each for each in found if isinstance(each, FORBIDDEN)]
            assert any(isinstance(each, Replica) for each in found)
            checked += 1
        cores.append(core)
        return effects

    monkeypatch.setattr(Dispatcher, "handle", handle)
    play(trace().requests, engine=SMALL, kv_events=kv_events)
    assert checked == 2


@pytest.mark.parametrize("kv_events", [False, True])
@pytest.mark.parametrize("policy", ["seconds", "least_requests", "llmd_default", "dynamo_kv"])
def test_a_longer_answer_changes_nothing_before_it_is_seen(monkeypatch, policy, kv_events):
    told: list[tuple[float, Dispatch]] = []
    real = Dispatcher.handle

    def handle(core: Dispatcher, event: Any, now: float) -> Any:
        effects = real(core, event, now)
        told.extend((now, each) for each in effects if isinstance(each, Dispatch))
        return effects

    monkeypatch.setattr(Dispatcher, "handle", handle)
    made = list(trace(400).requests)
    results, _ = play(made, policy, engine=SMALL, kv_events=kv_events)
    as_it_was, first = list(told), 20
    answers = [request.output_tokens for request in made]
    end_s = min(
        results.arrival_s[row] + results.ttft_s[row] + results.tpot_s[row] * (answers[row] - 1)
        for row in range(first, len(made))
        if answers[row] > 1
    )
    told.clear()
    for row in range(first, len(made)):
        if answers[row] > 1:
            made[row] = made[row]._replace(output_tokens=answers[row] * 10)
    play(made, policy, engine=SMALL, kv_events=kv_events)
    before = [each for each in as_it_was if each[0] < end_s]
    assert len(before) > first
    assert told[: len(before)] == before
    # And afterwards it does, or nothing would be proved.
    assert told != as_it_was


def test_what_is_heard_is_plain_data(monkeypatch):
    heard = listen(monkeypatch)
    play(trace().requests, engine=SMALL, kv_events=True)
    kinds = {type(event).__module__ for event, _ in heard}
    assert kinds == {"headrace.core.events"}
