"""HTML pages with drawings, as reports are: looked at piece by piece."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree as ET

_NEVER_CLOSED = {"br", "meta", "wbr"}


def drawings(page: str, screen: str = "") -> list[ET.Element]:
    """Each `<svg>`, which must be well-formed XML; those of one screen alone, "wide" or "phone"."""
    if screen:
        page = "".join(re.findall(rf'<div class="on-{screen}">(.*?)</div>', page, re.DOTALL))
    return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def touching_labels(drawing: ET.Element) -> list[str]:
    """Pairs of values below an axis that a letter's width of 7 would let touch."""
    rows: dict[float, list[tuple[float, float, str]]] = {}
    for each in drawing.iter("text"):
        if each.get("class") == "tick" and each.get("text-anchor") == "middle":
            middle, said = float(each.get("x") or 0.0), each.text or ""
            half = len(said) * 7.0 / 2
            rows.setdefault(float(each.get("y") or 0.0), []).append(
                (middle - half, middle + half, said)
            )
    return [
        f"{left[2]} {right[2]}"
        for row in rows.values()
        for left, right in pairwise(sorted(row))
        if right[0] < left[1]
    ]


def misplaced_tags(page: str) -> list[str]:
    """What is left open at the end, or closed in the wrong place."""
    reader = _Tags()
    reader.feed(page)
    return reader.misplaced + reader.opened


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.misplaced: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _NEVER_CLOSED:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """It is closed."""

    def handle_endtag(self, tag: str) -> None:
        if not self.opened or self.opened.pop() != tag:
            self.misplaced.append(f"/{tag}")
