"""What every repetition of every experiment said, and one point for each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from headrace.calibration.design import (
    Experiment,
    PromptExperiment,
    QueueExperiment,
    StreamsExperiment,
)
from headrace.calibration.repetitions import (
    USUAL_QUANTILE,
    held_up,
    undisturbed,
    undisturbed_queue,
    undisturbed_step,
)
from headrace.core.latency import LatencyProfile
from headrace.engine_model.calibration_table import (
    DecodePoint,
    PrefillPoint,
    PromptPoint,
    QueuePoint,
)

Points: TypeAlias = tuple[tuple[PromptPoint, ...], tuple[DecodePoint, ...]]


class Notebook:
    """The measurements of one session."""

    def __init__(self) -> None:
        self._prompts: dict[tuple[PromptExperiment, int], list[PrefillPoint]] = {}
        self._streams: dict[StreamsExperiment, list[DecodePoint]] = {}
        self._queues: dict[QueueExperiment, list[QueuePoint]] = {}

    def note_prompts(self, experiment: PromptExperiment, found: Sequence[PrefillPoint]) -> None:
        """A prompt, and those behind it that find it in the cache: each is a point of its own."""
        for place, point in enumerate(found):
            self._prompts.setdefault((experiment, place), []).append(point)

    def note_streams(self, experiment: StreamsExperiment, found: DecodePoint) -> None:
        """Streams side by side."""
        self._streams.setdefault(experiment, []).append(found)

    def note_queue(self, experiment: QueueExperiment, found: QueuePoint) -> None:
        """Prompts beside a stream."""
        self._queues.setdefault(experiment, []).append(found)

    def times_done(self, planned: Sequence[Experiment]) -> dict[Experiment, int]:
        """How often each was done: those `planned`, and streams and queues that were not."""
        return {each: self._times(each) for each in (*planned, *self._streams, *self._queues)}

    def points(self, pace: LatencyProfile, quantile: float = USUAL_QUANTILE) -> Points:
        """Each experiment as it is when nothing disturbs it."""
        prompts = [undisturbed(points, pace, quantile) for points in self._prompts.values()]
        queues = [undisturbed_queue(points, pace, quantile) for points in self._queues.values()]
        return (
            (*prompts, *queues),
            tuple(undisturbed_step(points, pace, quantile) for points in self._streams.values()),
        )

    def held_up(self, pace: LatencyProfile) -> int:
        """How many repetitions took far longer than others of their experiment."""
        prompts = [
            [(p.ttft_s, pace.prefill_s(p.uncached_tokens, p.cached_tokens)) for p in points]
            for points in self._prompts.values()
        ]
        queues = [
            [(p.ttft_s, pace.seconds(p.work)) for p in points] for points in self._queues.values()
        ]
        streams = [
            [(p.steps * p.step_s, p.steps * pace.step_s(p.batch, p.context_tokens)) for p in points]
            for points in self._streams.values()
        ]
        return sum(map(held_up, (*prompts, *queues, *streams)))

    def _times(self, experiment: Experiment) -> int:
        if isinstance(experiment, StreamsExperiment):
            return len(self._streams.get(experiment, ()))
        if isinstance(experiment, QueueExperiment):
            return len(self._queues.get(experiment, ()))
        return len(self._prompts.get((experiment, 0), ()))
