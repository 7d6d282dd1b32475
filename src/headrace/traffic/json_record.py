"""One line of a JSON trace as a record, and in plain words why a line is none."""

from __future__ import annotations

import msgspec

from headrace.traffic.trace import TraceError

MAX_SHOWN = 60
"""Characters of an offending line or value shown in an error."""
LENGTHS = ("input_length", "output_length")
REQUIRED = ("timestamp", *LENGTHS)


class JsonRecord(msgspec.Struct, gc=False):
    """The fields that JSON traces know; others are ignored."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] | None = None
    block_tokens: int | None = None
    session: str | int | None = None
    session_id: str | int | None = None

    def session_name(self) -> str:
        """The session as text, empty without one."""
        session = self.session if self.session is not None else self.session_id
        return "" if session is None else str(session)


_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What decoding raises; the last one where brackets are nested too deeply."""

_DECODER = msgspec.json.Decoder(JsonRecord)
# Each value as it stands there, whatever it is.
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])

_EXPECTED = {
    "timestamp": "a finite number",
    "input_length": "a whole number of tokens",
    "output_length": "a whole number of tokens",
    "hash_ids": "a list of whole numbers",
    "block_tokens": "a whole number of tokens",
    "session": "text or a whole number",
    "session_id": "text or a whole number",
}


def json_record(name: str, line: int, text: str) -> JsonRecord:
    """The record on a line of `name`.

    Raises:
        TraceError: the line is no JSON object, or a field is missing or of another kind.
    """
    try:
        return _DECODER.decode(text)
    except msgspec.ValidationError as error:
        whole = _whole_lengths(text)
        if whole == text:
            raise TraceError(name, line, _fault(text, error)) from None
    except _UNREADABLE as error:
        raise TraceError(name, line, _no_json(text, error)) from None
    return json_record(name, line, whole)


def _whole_lengths(text: str) -> str:
    """The line, with a length like 100.0 written as 100."""
    try:
        fields, changed = _FIELDS.decode(text), False
        for field in LENGTHS:
            value = msgspec.json.decode(fields[field])
            if isinstance(value, float) and value.is_integer():
                fields[field], changed = msgspec.Raw(str(int(value)).encode()), True
    except (KeyError, *_UNREADABLE):
        return text
    return msgspec.json.encode(fields).decode() if changed else text


def shown(text: str) -> str:
    """The start of a text, in quotes, for an error."""
    return repr(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…")


def _no_json(text: str, error: Exception) -> str:
    reason = str(error).removeprefix("JSON is malformed: ").lower()
    return f"expected a JSON object, found {shown(text.strip())} ({reason})"


def _fault(text: str, error: msgspec.ValidationError) -> str:
    """What is wrong with a line that is JSON but no record, as far as it was read."""
    if not text.lstrip().startswith("{"):
        return f"expected a JSON object, found {shown(text.strip())}"
    try:
        fields = _FIELDS.decode(text)
    except _UNREADABLE as malformed:
        return _no_json(text, malformed)
    for field in REQUIRED:
        if field not in fields:
            present = ", ".join(fields) or "no fields"
            return f"expected the field {field}, found {present[:MAX_SHOWN]}"
    for field, expected in _EXPECTED.items():
        if f"$.{field}" in str(error):
            found = shown(bytes(fields[field]).decode())
            return f"expected {field} to be {expected}, found {found}"
    return str(error)  # pragma: no cover - a safety net: every field is in the table
