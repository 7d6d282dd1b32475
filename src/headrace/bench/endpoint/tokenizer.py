"""A tokenizer from a local file: the library is an extra, imported only if a file is given."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from headrace.bench.record import Record
from headrace.bench.settings import BenchError
from headrace.edges.extras import how_to_install

CountTokens = Callable[[str], int]


def open_tokenizer(path: Path) -> CountTokens:
    """Counts the tokens of a text.

    Raises:
        BenchError: the library is not installed, or the file is no tokenizer.
    """
    try:
        # Imported where it is asked for: an extra.
        from tokenizers import Tokenizer  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        raise BenchError(
            "--tokenizer needs tokenizers, which is not installed; install the extra: "
            f"{how_to_install('tokenizer')}"
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises plain Exception
        raise BenchError(f"--tokenizer {path}: cannot be read: {error}") from None

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    return count


def count_output(record: Record, events: Iterable[bytes], count: CountTokens) -> None:
    """Put the tokens of an answer without usage into its record.

    Args:
        record: counts chunks so far; its gaps are those between chunks.
        events: its events with content, JSON somewhere in each.
        count: of the engine's tokenizer.
    """
    record.output_tokens = max(1, count("".join(map(_text, events))))
    record.tokens_exact = True
    if record.output_tokens > 1 and record.chunks > 1:
        scale = (record.chunks - 1) / (record.output_tokens - 1)
        record.itl_s = array("f", [gap_s * scale for gap_s in record.itl_s])


class _Choice(msgspec.Struct):
    delta: dict[str, Any] = {}
    text: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice]


def _text(event: bytes) -> str:
    start, end = event.find(b"{"), event.rfind(b"}")
    try:
        choices = msgspec.json.decode(event[start : end + 1], type=_Event).choices
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    parts = [part for each in choices for part in (each.text, *map(each.delta.get, _TEXTS)) if part]
    return "".join(part for part in parts if isinstance(part, str))


_TEXTS = ("reasoning_content", "reasoning", "content")
