"""The commands of the README and the tutorial run as they stand there, with fewer requests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from headrace.cli import main
from headrace.core.policies import make_policy
from headrace.simulator.runs import POOLED_REFERENCE

ROOT = Path(__file__).parents[4]
PAGES = ("README.md", "docs/tutorial/simulate.md")
REQUEST = '"input_length": 1200, "output_length": 9, "hash_ids": [1, 2]'
TRACE = "".join(f'{{"timestamp": {second * 1000}, {REQUEST}}}\n' for second in range(20))


def commands() -> list[str]:
    """Every `headrace simulate` that is shown, with its arguments, once."""
    text = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES).replace("\\\n", "")
    lines = re.findall(r"^(?:\.venv/bin/)?headrace (simulate --.*)", text, re.MULTILINE)
    return list(dict.fromkeys(" ".join(line.split()) for line in lines))


def test_they_are_found():
    assert len(commands()) == 7


@pytest.mark.parametrize("command", commands())
def test_each_runs(command: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conversation_trace.jsonl").write_text(TRACE)
    shorter = command.replace("requests=1000", "requests=10")
    assert main([*shlex.split(shorter), "--jobs", "1"]) == 0
    assert "goodput" in capsys.readouterr().out


def test_the_tables_have_policies_that_exist():
    text = "\n".join((ROOT / page).read_text("utf-8") for page in PAGES)
    rows = re.findall(r"^ ([a-z_]+(?::\S+)?) +[\d.]+\*? ", text, re.MULTILINE)
    assert len(rows) > 10
    for policy in rows:
        assert policy == POOLED_REFERENCE or make_policy(policy)
