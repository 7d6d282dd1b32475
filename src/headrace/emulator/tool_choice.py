"""Which tool a chat must call: an engine that generates nothing calls what it is told to.

Left to the model (`auto`), it calls none, as the model of an engine that was started with
`--enable-auto-tool-choice` may do.
"""

from __future__ import annotations

import msgspec

from headrace.emulator.refusals import Refused


class _Function(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    function: _Function


_decode_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_decode_choice = msgspec.json.Decoder(str | _Tool | None).decode


def tool_called(tools: bytes, choice: bytes) -> str:
    """The name of the tool that must be called, "" if none must be. Raises Refused."""
    if not choice:
        return ""
    try:
        wanted = _decode_choice(choice)
        if wanted is None or wanted in ("auto", "none"):
            return ""
        names = [each.function.name for each in _decode_tools(tools or b"null") or ()]
    except (msgspec.DecodeError, RecursionError) as error:
        raise _refused("tools", f"tools, tool_choice: {error}") from None
    if not names:
        raise _refused("tools", "When using `tool_choice`, `tools` must be set.")
    if isinstance(wanted, _Tool):
        if wanted.function.name not in names:
            words = f"tool_choice: {wanted.function.name} is none of the tools: {', '.join(names)}"
            raise _refused("tool_choice", words)
        return wanted.function.name
    if wanted != "required":
        words = f"tool_choice: {wanted}: expected none, auto, required, or a function of the tools"
        raise _refused("tool_choice", words)
    return names[0]


def _refused(param: str, words: str) -> Refused:
    return Refused(words, param=param, kind="BadRequestError")
