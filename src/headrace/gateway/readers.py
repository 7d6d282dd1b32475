"""Who reads a stream that its request's body did not ask for."""

from __future__ import annotations

from headrace.engines.dialect import Dialect
from headrace.engines.transcripts import TranscriptReader
from headrace.engines.usage import StreamReader
from headrace.gateway.call import Call
from headrace.gateway.endpoints import AUDIO
from headrace.gateway.stored import StoredResponses


def reader_of(call: Call, dialect: Dialect, responses: StoredResponses) -> StreamReader:
    """The reader of a transcript, of a stored response that is looked up, or of the endpoint."""
    path = call.http.path
    if path in AUDIO:
        return TranscriptReader()
    if responses.owes(path):
        return responses.lookup_reader(path, dialect)
    return dialect.stream_reader(call.request.endpoint)
