"""HTML pages with drawings, as reports are: looked at piece by piece."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

_NEVER_CLOSED = {"br", "meta", "wbr"}


def drawings(page: str) -> list[ET.Element]:
    """Each `<svg>`, which must be well-formed XML."""
    return [ET.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


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
