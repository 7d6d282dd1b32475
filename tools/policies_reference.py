"""Writes docs/reference/policies.md from the policies: `python -m tools.policies_reference`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from headrace.core.policies import POLICIES, parameters_of, sweep_of

_ROOT = Path(__file__).resolve().parent.parent
_POLICIES = _ROOT / "src" / "headrace" / "core" / "policies"
PAGE = _ROOT / "docs" / "reference" / "policies.md"

_HEAD = """\
# Routing policies

How a replica is chosen: `policy:` of a pool in `headrace.yaml`, `headrace up --policy`, and
`headrace simulate --policies`. `seconds` is Headrace's own. The others are baselines: plain rules,
and the rules of other routers as their sources state them, to be compared with on the same traffic,
the same index and the same replicas. This page is made from the code:
`python -m tools.policies_reference`.

A policy is written as its name, or with parameters behind it: `dynamo_kv:overlap_weight=4`,
`sglang_cache_aware:cache_threshold=0.5,balance_abs=32`. Parameters are numbers, 0 or more.

Each policy prices replicas and the lowest cost wins; of equal costs the fewest requests in flight,
then who was left alone for longest, then the name. Rules that pick by score cost the negated score;
who a rule does not consider costs `RULED_OUT` (1e8) more. All of them see what a gateway sees: its
own requests, the tokens it relays, the last scrape of each engine's metrics, and its prefix index.
`headrace why` shows every part of a cost.

"tried" are the values that a sweep tries.
"""
_SECTION = re.compile(r"^Parameters:\n", re.MULTILINE)
_LABEL = re.compile(r"\b(Inputs|Source|As there|Different here)(?=:\s)")


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(map(_section, POLICIES))


def documented(name: str) -> dict[str, str]:
    """What a policy's docstring says of each of its parameters."""
    _, section, table = _docstring(name).partition("Parameters:\n")
    if not section:
        return {}
    lines = re.sub(r"\n        +", " ", table).strip("\n").splitlines()
    return dict(_parameter(line) for line in lines)


def _section(name: str) -> str:
    text = _SECTION.split(_docstring(name))[0].strip()
    text = _LABEL.sub(r"**\1**", text)
    return "\n".join([f"\n## `{name}`", "", text, *_table(name), ""])


def _table(name: str) -> Iterator[str]:
    meanings, tried = documented(name), sweep_of(name)
    if not meanings:
        return
    yield from ("", "| parameter | default | tried | meaning |", "|---|---|---|---|")
    for parameter, default in parameters_of(name).items():
        values = ", ".join(f"{value:g}" for value in tried.get(parameter, ()))
        yield f"| `{parameter}` | {default:g} | {values} | {meanings[parameter]} |"


def _docstring(name: str) -> str:
    # Read and not imported: a compiled module has no docstring.
    return ast.get_docstring(ast.parse((_POLICIES / f"{name}.py").read_text("utf-8"))) or ""


def _parameter(line: str) -> tuple[str, str]:
    name, _, meaning = line.strip().partition(": ")
    return name, meaning.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
