"""Counts requests by their lengths, into the cells of a sketch."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.core.length_sketch import CellKey, LengthCell, LengthSketch


class LengthCounter:
    """Counts requests into cells; `sketch` is what was counted since the start."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: dict[CellKey, list[float]] = {}

    def add(
        self, input_tokens: float, hit_tokens: float, output_tokens: float, requests: float = 1.0
    ) -> None:
        """Count `requests` of these lengths each."""
        if requests <= 0.0:
            return
        key = cell_key(input_tokens, hit_tokens, output_tokens)
        sums = self._cells.get(key)
        if sums is None:
            sums = self._cells[key] = [0.0, 0.0, 0.0, 0.0]
        sums[0] += requests
        sums[1] += requests * input_tokens
        sums[2] += requests * hit_tokens
        sums[3] += requests * output_tokens

    def add_sketch(self, sketch: LengthSketch, weight: float = 1.0) -> None:
        """Count what another has counted, each request `weight` times."""
        for cell in sketch.cells:
            sums = self._cells.get(cell.key)
            if sums is None:
                sums = self._cells[cell.key] = [0.0, 0.0, 0.0, 0.0]
            sums[0] += weight * cell.requests
            sums[1] += weight * cell.input_tokens
            sums[2] += weight * cell.hit_tokens
            sums[3] += weight * cell.output_tokens

    def fade(self, kept: float, least_requests: float = 1e-3) -> None:
        """Let every count be `kept` times what it was; what is next to nothing is dropped."""
        for key in list(self._cells):
            sums = self._cells[key]
            if sums[0] * kept < least_requests:
                del self._cells[key]
            else:
                self._cells[key] = [kept * each for each in sums]

    def sketch(self) -> LengthSketch:
        """What was counted."""
        return LengthSketch(
            tuple(LengthCell(key, *self._cells[key]) for key in sorted(self._cells))
        )


def cell_key(input_tokens: float, hit_tokens: float, output_tokens: float) -> CellKey:
    """The cell of a request."""
    quarter = 0
    if hit_tokens > 0.0:
        share = hit_tokens / input_tokens if input_tokens > 0.0 else 0.0
        quarter = int(4.0 * share) + 1 if share < 1.0 else 4
    return (_octave(input_tokens), _octave(output_tokens), quarter)


def _octave(tokens: float) -> int:
    """The logarithm to base 2, rounded down, of what is at least 1."""
    return int(tokens).bit_length() - 1 if tokens >= 1.0 else 0


def sketch_of(lengths: Iterable[tuple[float, float, float]]) -> LengthSketch:
    """The sketch of requests given as (input, hit, output) tokens each."""
    counter = LengthCounter()
    for input_tokens, hit_tokens, output_tokens in lengths:
        counter.add(input_tokens, hit_tokens, output_tokens)
    return counter.sketch()


def merged(sketches: Iterable[LengthSketch]) -> LengthSketch:
    """All requests of several sketches."""
    counter = LengthCounter()
    for sketch in sketches:
        counter.add_sketch(sketch)
    return counter.sketch()
