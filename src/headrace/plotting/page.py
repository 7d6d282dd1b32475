"""A page that stands alone: style, script and drawings inside, nothing to fetch.

Whatever text is handed in is escaped here; `body`, `drawing` and `note` are HTML already.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol

from headrace.plotting.style import SCRIPT, STYLE
from headrace.plotting.svg import PHONE, WIDE

Fact = tuple[str, str]
"""A figure, and what it says."""

_LONG = 16
"""Letters from which a figure, then a name, gets a row of its own on a narrow screen."""


class Draw(Protocol):
    """Makes a plot for a width."""

    def __call__(self, *, width: float) -> str:
        """The drawing; `width` in its own units, about pixels."""
        ...


def page(title: str, body: str, *, style: str = "") -> str:
    """The whole page as HTML; `style` is CSS of its own, behind that of all pages."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>"
        f"{body}</main><script>{SCRIPT}</script></body></html>\n"
    )


def heading(title: str, said: str) -> str:
    """The title, and one line under it."""
    return f'<h1>{escape(title)}</h1><p class="soft">{escape(said)}</p>'


def verdict(kind: str, headline: str, lines: Iterable[str]) -> str:
    """The answer in a sentence, and what it rests on; `kind` is the class of its colour."""
    said = "".join(f"<p>{_unbroken(line)}</p>" for line in lines)
    return f'<div class="verdict {kind}"><b>{_unbroken(headline)}</b>{said}</div>'


def _unbroken(text: str) -> str:
    """Text in which no line ends between a number and its unit."""
    return re.sub(r"(?<=\d) (?=%|(?:s|ms|µs|h)\b)", "\N{NO-BREAK SPACE}", escape(text))


def facts(entries: Iterable[Fact]) -> str:
    """The answer first: a few large figures in a row."""
    cards = "".join(
        f'<div class="fact{" long" if len(figure) >= _LONG else ""}"><b>{breakable(figure)}</b>'
        f"<span>{escape(said)}</span></div>"
        for figure, said in entries
    )
    return f'<div class="facts">{cards}</div>'


def breakable(name: str) -> str:
    """A policy's name, which may be broken into lines between its parameters."""
    return re.sub(r"([:,])", r"\1<wbr>", escape(name))


def figure(title: str, said: str, draw: Draw, *, legend: str = "") -> str:
    """A plot with its title, and what to read in it; `draw` makes it for a width."""
    caption = f"<figcaption><h2>{escape(title)}</h2><p>{escape(said)}</p>{legend}</figcaption>"
    return f"<figure>{caption}{on_each_screen(draw)}</figure>"


def on_each_screen(draw: Draw) -> str:
    """The same plot drawn for a wide screen and for a phone; the style sheet shows one of them."""
    wide, phone = draw(width=WIDE), draw(width=PHONE)
    return f'<div class="on-wide">{wide}</div><div class="on-phone">{phone}</div>'


def figures(entries: Iterable[str]) -> str:
    """Plots side by side, as many as there is room for."""
    return f'<div class="plots">{"".join(entries)}</div>'


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Names with their colours; an entry is a name and the class of its colour."""
    spans = "".join(
        f'<span class="series {kind}" data-series="{escape(name)}"><i></i>{escape(name)}</span>'
        for name, kind in entries
    )
    return f'<div class="cast">{spans}</div>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, said_last: bool = False) -> str:
    """Plain rows under heads; the first column is a name, the last one a sentence if so said."""
    kind = "said" if said_last else ""
    body = "".join(f"<tr>{cells('td', row, last=kind)}</tr>" for row in rows)
    head = f"<tr>{cells('th', heads, last=kind)}</tr>"
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def cells(kind: str, contents: Sequence[str], *, last: str = "") -> str:
    """Cells of a row; `kind` is `th` or `td`, `last` the class of the last one."""
    classes = [""] * (len(contents) - 1) + [f' class="{last}"' if last else ""]
    return "".join(
        f"<{kind}{of}>{escape(content)}</{kind}>"
        for of, content in zip(classes, contents, strict=True)
    )


def wide(title: str, content: str) -> str:
    """A card over the whole width."""
    return f'<div class="wide"><h2>{escape(title)}</h2>{content}</div>'


def parameters(entries: Iterable[tuple[str, str]]) -> str:
    """Names and values, side by side."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in entries
    )
    return f"<dl>{items}</dl>"


def note(said: str) -> str:
    """A paragraph in small print."""
    return f'<p class="soft note">{escape(said)}</p>'
