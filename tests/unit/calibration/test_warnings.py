"""What the intervals of a fit do not account for is said."""

from __future__ import annotations

import pytest

from headrace.calibration.replica import Replica
from headrace.calibration.session import Measured, Session, Settings
from headrace.calibration.stream import TimedAnswer
from headrace.engines.reading import EngineReading
from tests.unit.calibration.test_session import HIDDEN, OVERHEAD_S, TICK_S
from tests.unit.calibration.virtual_engine import VirtualEngine, replica_of


class Counting(VirtualEngine):
    """Counts what it does, as engines' metrics do, and stops now and then."""

    def __init__(self, *stops: int) -> None:
        super().__init__(HIDDEN["h100"], overhead_s=OVERHEAD_S, tick_s=TICK_S)
        self.input_tokens = self.output_tokens = 0
        self._stops = stops
        self._asked = 0

    async def together(self, prompts: list[str], output_tokens: int) -> list[TimedAnswer]:
        answers = await super().together(prompts, output_tokens)
        self._count(*answers)
        self._asked += len(prompts) == 1
        if len(prompts) > 1 or self._asked not in self._stops:
            return answers
        (one,) = answers
        return [TimedAnswer(one.asked_s, tuple(each + 3.0 for each in one.content_s), one.usage)]

    async def beside(
        self, first: str, first_tokens: int, prompts: list[str], output_tokens: int, at_once: int
    ) -> tuple[TimedAnswer, list[TimedAnswer]]:
        clock, answers = await super().beside(first, first_tokens, prompts, output_tokens, at_once)
        self._count(clock, *answers)
        return clock, answers

    def _count(self, *answers: TimedAnswer) -> None:
        self.input_tokens += sum(each.usage.input_tokens for each in answers)
        self.output_tokens += sum(each.usage.output_tokens for each in answers)


async def measured(
    monkeypatch: pytest.MonkeyPatch,
    engine: Counting,
    *,
    others: tuple[int, int] = (0, 0),
    preempted: int = 0,
) -> Measured:
    """A calibration at whose end others had so many tokens of prompts and answers."""
    began = False

    async def reading(_replica: Replica) -> EngineReading:
        nonlocal began
        more, began = began, True
        return EngineReading(
            input_tokens_total=float(1_000 + engine.input_tokens + more * others[0]),
            output_tokens_total=float(1_000 + engine.output_tokens + more * others[1]),
            preemptions_total=float(7 + more * preempted),
        )

    monkeypatch.setattr(Replica, "reading", reading)
    replica = replica_of(HIDDEN["h100"], max_context_tokens=32_768, tells_sequences=True)
    return await Session(replica, engine, Settings(budget_s=20.0), lambda *_: None).calibrate()


async def test_an_engine_that_nobody_else_used_is_not_warned_of(monkeypatch):
    found = await measured(monkeypatch, Counting())
    assert (found.warnings, found.notes) == ((), ())


@pytest.mark.parametrize("others", [(500, 0), (0, 70)], ids=["prompts", "answers"])
async def test_what_little_others_had_of_it_is_warned_of(monkeypatch, others):
    (warning,) = (await measured(monkeypatch, Counting(), others=others)).warnings
    assert warning.startswith(f"the engine read {others[0]} and generated {others[1]} tokens that")


async def test_sequences_that_were_thrown_out_are_warned_of(monkeypatch):
    (warning,) = (await measured(monkeypatch, Counting(), preempted=3)).warnings
    assert warning.startswith("the engine threw requests out of its KV cache 3 times: it is too")


async def test_an_engine_that_stood_still_is_warned_of(monkeypatch):
    (warning,) = (await measured(monkeypatch, Counting(40))).warnings
    assert warning.startswith("1 of the measurements took far longer than others of the same kind")
