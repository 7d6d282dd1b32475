"""What `headrace calibrate --check` shows of each experiment."""

import io

from rich.console import Console

from headrace.calibration.comparison import Compared, Comparison
from headrace.compose.calibrate.tables import comparison_page


def test_what_is_off_by_nothing_has_no_minus():
    rows = (Compared("prefill 512", 0.1, 0.10001), Compared("decode 1", 0.1, 0.09))
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison_page(Comparison(rows[:1], rows[1:], 0.15)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "+0.0 %" in text
    assert "-0.0 %" not in text
    assert "+11.1 %" in text
