"""How long prompts and answers were beside what was planned.

share = tokens of the usage / tokens planned, of whole answers whose usage tells

An endpoint that ends its answers sooner than it is asked to has less to do than was planned, and is
faster than it would be. So the report says it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Lengths:
    """Sums of tokens, of many answers."""

    planned_input: int = 0
    input: int = 0
    planned_output: int = 0
    output: int = 0

    def merge(self, other: Lengths) -> None:
        """Count those of another worker, too."""
        self.planned_input += other.planned_input
        self.input += other.input
        self.planned_output += other.planned_output
        self.output += other.output

    @property
    def input_share(self) -> float | None:
        """None: no usage told."""
        return self.input / self.planned_input if self.planned_input else None

    @property
    def output_share(self) -> float | None:
        """None: no usage told."""
        return self.output / self.planned_output if self.planned_output else None
