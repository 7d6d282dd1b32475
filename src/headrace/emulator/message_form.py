"""`/v1/messages`: Anthropic's API, as vLLM speaks it."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.emulator.answer_form import Answer, Ended, Spent, Token, encode, named_event

_REASONS = {"stop": "end_turn", "length": "max_tokens"}


class MessageForm:
    """See `answer_form.Form`."""

    __slots__ = ("_message", "head", "tail")
    alike: bool = True

    def __init__(self, answer: Answer) -> None:
        self._message: dict[str, object] = {
            "id": f"chatcmpl-{answer.id}",
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": answer.model,
            "stop_reason": None,
        }
        self.head = self.tail = b""

    def opening(self, spent: Spent) -> bytes:
        """See `Form`."""
        self.head, self.tail = self.event(Token(b"\0")).split(b"\\u0000")
        message = {**self._message, "stop_sequence": None, "usage": _usage(spent)}
        block = {"type": "text", "text": ""}
        return named_event("message_start", message=message) + named_event(
            "content_block_start", content_block=block, index=0
        )

    def event(self, token: Token) -> bytes:
        """See `Form`."""
        delta = {"type": "text_delta", "text": token.word.decode()}
        return named_event("content_block_delta", delta=delta, index=0)

    def ending(self, ended: Ended) -> list[bytes]:
        """See `Form`."""
        delta = {"stop_reason": _reason(ended), "stop_sequence": ended.stop_reason}
        return [
            named_event("content_block_stop", index=0),
            named_event("message_delta", delta=delta, usage=_usage(ended.spent)),
            named_event("message_stop"),
        ]

    def whole(self, choices: Sequence[Ended], spent: Spent) -> bytes:
        """See `Form`."""
        [ended] = choices
        answer = {
            **self._message,
            "content": [{"type": "text", "text": ended.text}],
            "stop_reason": _reason(ended),
        }
        if ended.stop_reason is not None:
            answer["stop_sequence"] = ended.stop_reason
        return encode({**answer, "usage": _usage(spent)})


def _reason(ended: Ended) -> str | None:
    if ended.stop_reason is not None:
        return "stop_sequence"
    return _REASONS.get(ended.reason)


def _usage(spent: Spent) -> dict[str, object]:
    """Input without what the cache gave, which this API counts apart."""
    usage: dict[str, object] = {
        "input_tokens": spent.prompt_tokens - (spent.cached_tokens or 0),
        "output_tokens": spent.output_tokens,
    }
    if spent.cached_tokens is not None:
        usage["cache_read_input_tokens"] = spent.cached_tokens
    return usage
