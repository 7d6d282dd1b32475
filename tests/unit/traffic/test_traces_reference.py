"""The examples of docs/reference/traces.md are read as they stand there."""

import re
from pathlib import Path

from headrace.traffic.generated import KINDS
from headrace.traffic.reader import read_trace

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "traces.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def test_the_lines_of_each_format_are_traces():
    tables = [block for block in blocks("") if block.startswith("TIMESTAMP")]
    sizes = [
        len(read_trace("example", block.splitlines(), seed=0).requests)
        for block in (*blocks("json"), *tables)
    ]
    assert sizes == [1, 3, 1]


def test_the_python_example_runs():
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(block, names)
    assert "trace" in names


def test_every_kind_of_traffic_is_described():
    described = re.findall(r"^\*\*`(\w+)`\*\*", PAGE, re.MULTILINE)
    assert sorted(described) == sorted(KINDS)
