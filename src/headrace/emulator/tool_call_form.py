"""A chat whose answer is a call of the tool that the request insists on.

The first token is the call's name, the others are its arguments: `{"text": "…"}` with the made-up
words in it, whatever the tool's parameters are. One that `max_tokens` cuts is left open.
"""

from __future__ import annotations

from headrace.emulator.answer_form import Answer, Ended, Token
from headrace.emulator.answer_text import WORDS
from headrace.emulator.chunk_form import ChunkForm

CALLED = "tool_calls"
"""Why an answer ended that is a whole call."""
_BEGIN, _END = '{"text": "', '"}'


class ToolCallForm(ChunkForm):
    """See `answer_form.Form`."""

    __slots__ = ("_call_id", "_sent", "_tool")
    alike = False

    def __init__(self, answer: Answer, *, tool: str) -> None:
        super().__init__(answer, chat=True)
        self._call_id = f"chatcmpl-tool-{answer.id}-{answer.number}"
        self._tool = tool
        self._sent = 0

    def _piece(self, token: Token) -> dict[str, object]:
        reason = token.reason
        self._sent += 1
        function: dict[str, object] = {}
        if self._sent == 1:
            call: dict[str, object] = {"id": self._call_id, "type": "function", "index": 0}
            function["name"] = self._tool
            arguments = _arguments("", reason) if reason == CALLED else ""
        else:
            call = {"index": 0}
            before = _arguments("", None) if self._sent == 2 else ""
            arguments = before + token.word.decode() + (_END if reason == CALLED else "")
        if arguments:
            function["arguments"] = arguments
        call["function"] = function
        return {"delta": {"content": None, "tool_calls": [call]}}

    def _content(self, ended: Ended) -> dict[str, object]:
        arguments = _arguments(ended.text[len(WORDS[0]) :], ended.reason)
        function = {"name": self._tool, "arguments": arguments}
        call = {"id": self._call_id, "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
        return {"message": message}


def _arguments(words: str, reason: str | None) -> str:
    return _BEGIN + words + (_END if reason == CALLED else "")
