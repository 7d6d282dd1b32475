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


def sketch_from(rows: Iterable[list[float]]) -> LengthSketch:
    """The sketch whose `rows` these are."""
    return LengthSketch(
        tuple(LengthCell((int(row[0]), int(row[1]), int(row[2])), *row[3:]) for row in rows)
    )


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
