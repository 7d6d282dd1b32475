"""The model named in a multipart form (audio transcription, image edits): one field, by span."""

from __future__ import annotations

import re

from headrace.gateway.large_body import Span

MAX_PARTS = 64
"""Parts that are looked through for the model's name."""
_PART_HEAD_BYTES = 4096
_BOUNDARY = re.compile(
    rb'multipart/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))', re.IGNORECASE
)
_MODEL = re.compile(
    rb'content-disposition:\s*form-data\s*;[^\r\n]*\bname="?model"?(?:[;\r\s]|$)', re.IGNORECASE
)


def boundary_of(content_type: bytes | None) -> bytes | None:
    """Return the delimiter of a multipart form, None for any other content."""
    found = _BOUNDARY.match(content_type or b"")
    return (found[1] or found[2]) if found else None


def model_span(body: bytes, boundary: bytes) -> Span | None:
    """Return where the value of the form field `model` lies, None if the form has none."""
    delimiter = b"--" + boundary
    at = body.find(delimiter)
    for _ in range(MAX_PARTS):
        if at < 0:
            return None
        head = at + len(delimiter)
        end_of_head = body.find(b"\r\n\r\n", head, head + _PART_HEAD_BYTES)
        at = body.find(b"\r\n" + delimiter, head)
        if end_of_head >= 0 and at >= end_of_head and _MODEL.search(body, head, end_of_head):
            return end_of_head + 4, at
        at = at + 2 if at >= 0 else at
    return None
