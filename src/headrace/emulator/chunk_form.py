"""`/v1/chat/completions` and `/v1/completions`: choices, and a stream of chunks."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.emulator.answer_form import Answer, Ended, Spent, Token, encode

_DONE = b"data: [DONE]\n\n"


class ChunkForm:
    """See `answer_form.Form`."""

    __slots__ = ("_chat", "_continuous", "_identity", "_index", "head", "tail")
    alike: bool = True

    def __init__(self, answer: Answer, *, chat: bool) -> None:
        self._chat = chat
        self._index = answer.number
        self._continuous = answer.continuous_usage
        kind = "chat.completion" if chat else "text_completion"
        if chat and answer.streamed:
            kind += ".chunk"
        self._identity: dict[str, object] = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{answer.id}",
            "object": kind,
            "created": answer.created,
            "model": answer.model,
        }
        self.head = self.tail = b""

    def opening(self, spent: Spent) -> bytes:
        """See `Form`: the event of a chat that says who speaks."""
        if self.alike:
            self.head, self.tail = self.event(Token(b"\0")).split(b"\\u0000")
        if not self._chat:
            return b""
        choice = {
            "index": self._index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._chunk(choice, spent if self._continuous else None)

    def event(self, token: Token) -> bytes:
        """See `Form`."""
        choice: dict[str, object] = {"index": self._index, **self._piece(token)}
        choice |= {"logprobs": token.logprobs, "finish_reason": token.reason}
        if token.reason is not None or not self._chat:
            choice["stop_reason"] = token.stop_reason
        choice["token_ids"] = None
        return self._chunk(choice, token.spent)

    def ending(self, ended: Ended) -> list[bytes]:
        """See `Form`."""
        if not ended.usage_asked:
            return [_DONE]
        total = _usage(ended.spent)
        return [_event({**self._identity, "choices": [], "usage": total}), _DONE]

    def whole(self, choices: Sequence[Ended], spent: Spent) -> bytes:
        """See `Form`."""
        listed = [self._choice(each) for each in choices]
        return encode({**self._identity, "choices": listed, "usage": _usage(spent)})

    def _piece(self, token: Token) -> dict[str, object]:
        """What a choice holds of an event's token."""
        text = token.word.decode()
        return {"delta": {"content": text}} if self._chat else {"text": text}

    def _content(self, ended: Ended) -> dict[str, object]:
        """What a choice of a whole answer holds."""
        if not self._chat:
            return {"text": ended.text}
        return {"message": {"role": "assistant", "content": ended.text, "refusal": None}}

    def _choice(self, ended: Ended) -> dict[str, object]:
        return {
            "index": ended.number,
            **self._content(ended),
            "logprobs": ended.logprobs,
            "finish_reason": ended.reason,
            "stop_reason": ended.stop_reason,
        }

    def _chunk(self, choice: dict[str, object], spent: Spent | None) -> bytes:
        chunk = {**self._identity, "choices": [choice]}
        return _event(chunk if spent is None else {**chunk, "usage": _usage(spent)})


def _usage(spent: Spent) -> dict[str, object]:
    usage: dict[str, object] = {
        "prompt_tokens": spent.prompt_tokens,
        "total_tokens": spent.prompt_tokens + spent.output_tokens,
        "completion_tokens": spent.output_tokens,
    }
    if spent.cached_tokens is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": spent.cached_tokens}
    return usage


def _event(chunk: dict[str, object]) -> bytes:
    return b"data: " + encode(chunk) + b"\n\n"
