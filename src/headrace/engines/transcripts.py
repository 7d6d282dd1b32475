"""Streams of `/v1/audio/transcriptions` and `translations`, of OpenAI and of vLLM.

Their text is no content that is measured: TTFT and TPOT of a pool are what its latency model learns
from and its targets are judged by, as seconds of a prompt's tokens, and here the prompt is seconds
of audio whose length nobody has read.
"""

from __future__ import annotations

from headrace.engines.answers import read_other
from headrace.engines.sse import event_data
from headrace.engines.usage import StreamReader


class TranscriptReader(StreamReader):
    """Relays every event, and reads the usage of those that have one."""

    __slots__ = ()

    def feed(self, event: bytes) -> bytes | None:
        """See `StreamReader.feed`."""
        if event.find(b'"usage"') >= 0:
            self.usage = read_other(event_data(event)).usage or self.usage
        return super().feed(event)
