"""What a run shows while it goes fits into a terminal, and failures are seen in the narrowest."""

from rich.console import RenderableType
from rich.text import Text

from headrace.bench.sending.sender import Progress
from headrace.compose.bench.display import BenchDisplay
from headrace.compose.process.terminal import Board, Terminal


class Kept(Board):
    """Moves, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(None)
        self.lines: list[str] = []

    @property
    def moves(self) -> bool:
        return True

    def show(self, content: RenderableType) -> None:
        assert isinstance(content, Text)
        self.lines = content.plain.splitlines()


def shown(progress: Progress) -> list[str]:
    board = Kept()
    BenchDisplay(board, Terminal(), 1_000_000).show(120.0, progress)
    return board.lines


def test_failures_come_first_where_a_line_is_cut_off():
    many = shown(Progress(240_000, 18_000, 221_000, failed=1_234, left=12_345))
    assert "failed 1,234" in many[0][:40]
    assert "failed" not in shown(Progress(240_000, 18_000, 221_000))[0]


def test_times_are_written_as_in_the_tables():
    found = shown(Progress(30, 10, 20, ttft_s=[12.648], tpot_s=[0.0798], max_lag_s=0.0042))
    assert "TTFT p50 12.6 s p95 12.6 s · TPOT p50 79.8 ms" in found[1]
    assert "generator lag at most 4.2 ms" in found[2]
