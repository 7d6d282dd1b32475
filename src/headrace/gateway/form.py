"""The model named in a multipart form (audio transcription, image edits): one field, by span.

The model that is routed by must be the one that the engine reads. So the fields of a form are told
apart by its grammar (RFC 7578, RFC 2046, parameters as in RFC 2045), and what two readers might
read differently is refused.
"""

from __future__ import annotations

import re

from headrace.gateway.large_body import Span

MAX_PARTS = 1000
"""Parts of a form; Starlette, and so vLLM, takes no more either."""
_PART_HEAD_BYTES = 8192
_BOUNDARY_BYTES = 70
_PADDING_BYTES = 64
_FORM = b"multipart/form-data"
_PARAMETER = re.compile(
    rb'[ \t]*;[ \t]*(?:([^\s=;"]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^";]*)))?[ \t]*', re.DOTALL
)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_FOLD = re.compile(rb"\r\n[ \t]+")
_AFTER_DELIMITER = re.compile(rb"(--)|[ \t]*\r\n")
_BEGIN_OF_THAT = re.compile(rb"-?|[ \t]*\r?")


class BadForm(ValueError):
    """A form that is not read as an engine might read it; `param` is the field it is about."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def is_form(content_type: bytes | None) -> bool:
    """Whether the content is a multipart form."""
    return (content_type or b"").partition(b";")[0].strip().lower() == _FORM


def boundary_of(content_type: bytes) -> bytes:
    """Return the delimiter of a multipart form. Raises `BadForm`."""
    boundary = _parameters(content_type, "Content-Type").get(b"boundary", b"")
    if not 0 < len(boundary) <= _BOUNDARY_BYTES:
        raise BadForm(f"its Content-Type names no boundary of 1 to {_BOUNDARY_BYTES} bytes")
    return boundary


def _parameters(value: bytes, field: str) -> dict[bytes, bytes]:
    """Return what follows the first word of a field, names in lower case. Raises `BadForm`."""
    found: dict[bytes, bytes] = {}
    at = value.find(b";")
    while 0 <= at < len(value):
        match = _PARAMETER.match(value, at)
        if match is None:
            raise BadForm(f"the parameters of a {field} are malformed: {value[:128]!a}")
        at = match.end()
        if match[1] is None:
            continue
        name = match[1].lower()
        if name in found:
            raise BadForm(f"a {field} gives {name[:64].decode('latin-1')!a} more than once")
        quoted, plain = match[2], match[3]
        found[name] = plain.strip() if quoted is None else _ESCAPED.sub(rb"\1", quoted)
    return found


def _field_of(head: bytes) -> tuple[bytes, bool]:
    """Return the name of a part, "" if it has none, and whether it is a file. Raises `BadForm`."""
    lines = (line.partition(b":") for line in _FOLD.sub(b" ", head).split(b"\r\n"))
    said = [value for name, _, value in lines if name.strip().lower() == b"content-disposition"]
    if not said:
        return b"", False
    if len(said) > 1:
        raise BadForm("a part has two Content-Disposition lines")
    given = _parameters(said[0], "Content-Disposition")
    if any(name.startswith(b"name*") for name in given):
        raise BadForm("a part's name is encoded ('name*'); forms have plain names (RFC 7578)")
    is_file = any(name.startswith(b"filename") for name in given)
    return given.get(b"name", b""), is_file


class FormScanner:
    """Finds the field `model` of one form, fed piece by piece.

    `span` is where its value lies, None if there is no such field. A file is never taken for it.
    """

    __slots__ = ("_at", "_base", "_done", "_in_head", "_mark", "_named", "_parts", "_rest", "span")

    def __init__(self, boundary: bytes) -> None:
        self._mark = b"\r\n--" + boundary
        self._rest = b"\r\n"  # the first delimiter may stand at the very beginning
        self._base = -len(self._rest)
        self._in_head = False
        self._done = False
        self._parts = 0
        self._named = False
        self._at: int | None = None
        """Where the value of the model begins, as long as it has not ended."""
        self.span: Span | None = None

    def feed(self, data: bytes) -> None:
        """Read the next piece. Raises `BadForm`."""
        data = self._rest + data
        at, step = -1, 0
        while at != step and not self._done:
            at = step
            step = self._head(data, at) if self._in_head else self._content(data, at)
        self._rest = b"" if self._done else data[step:]
        self._base += step

    def _content(self, data: bytes, at: int) -> int:
        """Go to the end of a part's content, or as far as it is sure; return where to go on."""
        found = data.find(self._mark, at)
        if found < 0:
            return max(at, len(data) - len(self._mark) + 1)
        end = found + len(self._mark)
        after = _AFTER_DELIMITER.match(data, end)
        if after is None:
            whole = len(data) - end >= _PADDING_BYTES or not _BEGIN_OF_THAT.fullmatch(data, end)
            return end if whole else found  # either it only begins like one, or more is to come
        if self._at is not None:
            self.span, self._at = (self._at, self._base + found), None
        self._done = after[1] is not None
        self._in_head = True
        self._parts += 1
        if self._parts > MAX_PARTS and not self._done:
            raise BadForm(
                f"it has over {MAX_PARTS} parts, more than are looked through for the field"
                " 'model' (MAX_PARTS, a fixed limit)"
            )
        return after.end() if self._done else after.end() - 2

    def _head(self, data: bytes, at: int) -> int:
        """Read a part's head, which begins with the end of the delimiter's line."""
        end = data.find(b"\r\n\r\n", at, at + _PART_HEAD_BYTES)
        if end < 0:
            if len(data) - at >= _PART_HEAD_BYTES:
                raise BadForm(f"the head of a part is over {_PART_HEAD_BYTES} bytes")
            return at
        self._in_head = False
        name, is_file = _field_of(data[at + 2 : end])
        if name == b"model":
            if self._named:
                raise BadForm("'model' stands in it more than once", "model")
            self._named = True
            self._at = None if is_file else self._base + end + 4
        return end + 4
