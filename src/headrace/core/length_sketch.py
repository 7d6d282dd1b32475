"""How long requests are: a joint histogram of prompt, prefix hit and answer.

Capacity depends on how lengths go together: two pools with the same means, one of which has its
long prompts with its long answers, need different numbers of replicas. A cell covers a factor of
two in prompt tokens, in answer tokens, and a quarter of the share that is hit; it keeps sums, so
that means stay exact however coarse the cells are. Sketches of several gateways add up, and of two
readings of one gateway the difference is what came in between.

    cell = (log2(input tokens), log2(output tokens), quarter of hit / input)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

CellKey: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LengthCell:
    """Requests of about one kind: how many, and their tokens in sum. Floats: a fluid has parts."""

    key: CellKey
    requests: float
    input_tokens: float
    hit_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True)
class LengthSketch:
    """Cells in the order of their keys."""

    cells: tuple[LengthCell, ...] = ()

    def rows(self) -> list[list[float]]:
        """The cells as JSON can hold them; `sketch_from` reads them."""
        return [
            [*cell.key, cell.requests, cell.input_tokens, cell.hit_tokens, cell.output_tokens]
            for cell in self.cells
        ]

    @property
    def requests(self) -> float:
        """Requests in all cells."""
        return sum(cell.requests for cell in self.cells)

    def means(self) -> tuple[float, float, float]:
        """Mean prompt, hit and answer tokens of a request; zeros where there is none."""
        count = self.requests
        if count <= 0.0:
            return (0.0, 0.0, 0.0)
        return (
            sum(cell.input_tokens for cell in self.cells) / count,
            sum(cell.hit_tokens for cell in self.cells) / count,
            sum(cell.output_tokens for cell in self.cells) / count,
        )


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


def sketch_from(rows: Iterable[list[float]]) -> LengthSketch:
    """The sketch whose `rows` these are."""
    return LengthSketch(
        tuple(LengthCell((int(row[0]), int(row[1]), int(row[2])), *row[3:]) for row in rows)
    )


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


def since(later: LengthSketch, earlier: LengthSketch) -> LengthSketch:
    """What a gateway counted between two readings; a cell that went back counts nothing."""
    before = {cell.key: cell for cell in earlier.cells}
    cells: list[LengthCell] = []
    for cell in later.cells:
        old = before.get(cell.key)
        if old is None:
            cells.append(cell)
        elif cell.requests > old.requests:
            cells.append(
                LengthCell(
                    cell.key,
                    cell.requests - old.requests,
                    max(cell.input_tokens - old.input_tokens, 0.0),
                    max(cell.hit_tokens - old.hit_tokens, 0.0),
                    max(cell.output_tokens - old.output_tokens, 0.0),
                )
            )
    return LengthSketch(tuple(cells))
