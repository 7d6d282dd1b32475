"""Counts requests by their lengths, into the cells of a sketch."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.core.length_sketch import CellKey, LengthCell, LengthSketch


class _Sums:
    """What is counted of one cell: its requests and their tokens."""

    __slots__ = ("hit_tokens", "input_tokens", "output_tokens", "requests")

    def __init__(self) -> None:
        self.requests = 0.0
        self.input_tokens = 0.0
        self.hit_tokens = 0.0
        self.output_tokens = 0.0

    def add(
        self, requests: float, input_tokens: float, hit_tokens: float, output_tokens: float
    ) -> None:
        """Count so many requests, with these tokens in sum."""
        self.requests += requests
        self.input_tokens += input_tokens
        self.hit_tokens += hit_tokens
        self.output_tokens += output_tokens


class LengthCounter:
    """Counts requests into cells; `sketch` is what was counted since the start."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: dict[CellKey, _Sums] = {}

    def add(
        self, input_tokens: float, hit_tokens: float, output_tokens: float, requests: float = 1.0
    ) -> None:
        """Count `requests` of these lengths each."""
        if requests <= 0.0:
            return
        self._sums(cell_key(input_tokens, hit_tokens, output_tokens)).add(
            requests, requests * input_tokens, requests * hit_tokens, requests * output_tokens
        )

    def add_sketch(self, sketch: LengthSketch, weight: float = 1.0) -> None:
        """Count what another has counted, each request `weight` times."""
        for cell in sketch.cells:
            self._sums(cell.key).add(
                weight * cell.requests,
                weight * cell.input_tokens,
                weight * cell.hit_tokens,
                weight * cell.output_tokens,
            )

    def _sums(self, key: CellKey) -> _Sums:
        sums = self._cells.get(key)
        if sums is None:
            sums = self._cells[key] = _Sums()
        return sums

    def fade(self, kept: float, least_requests: float = 1e-3) -> None:
        """Let every count be `kept` times what it was; what is next to nothing is dropped."""
        for key in list(self._cells):
            sums = self._cells[key]
            if sums.requests * kept < least_requests:
                del self._cells[key]
            else:
                sums.requests *= kept
                sums.input_tokens *= kept
                sums.hit_tokens *= kept
                sums.output_tokens *= kept

    def sketch(self) -> LengthSketch:
        """What was counted."""
        cells: list[LengthCell] = []
        for key in sorted(self._cells):
            sums = self._cells[key]
            tokens = (sums.input_tokens, sums.hit_tokens, sums.output_tokens)
            cells.append(LengthCell(key, sums.requests, *tokens))
        return LengthSketch(tuple(cells))


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
