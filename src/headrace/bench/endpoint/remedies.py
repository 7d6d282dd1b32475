"""What to do about an endpoint that does not answer as it should: it depends on the fault."""

from __future__ import annotations

from headrace.bench.settings import KEY_VARIABLE
from headrace.core.one_line import error_said, in_a_line
from headrace.edges.http.fetch import FetchError, FetchResult
from headrace.edges.http.heads import find

_IS_IT_ONE = "is it the URL of an OpenAI-compatible server?"
_BY_WORDS = (
    ("certificate has expired", "it must be renewed there"),
    ("certificate is not yet valid", "it must be renewed there, if this machine's clock is right"),
    ("mismatch, certificate is not valid", "write a host that it is for"),
    (
        "certificate is not accepted",
        "name the file of the CA that signed it in the variable SSL_CERT_FILE",
    ),
    ("certificate (`tls.cert_file`)", "bench shows none: measure behind a gateway that does"),
    ("TLS: ", "does it speak TLS there? If not, write http://"),
    ("cannot connect", "is it up?"),
    ("no answer within", "it takes connections and says nothing: is it up, and ready?"),
)
"""Of failures without an answer, by what is said of them; the first that fits."""


def of_failure(error: FetchError) -> str:
    """A failure, and what to do about it."""
    said = str(error)
    remedy = next((remedy for words, remedy in _BY_WORDS if words in said), _IS_IT_ONE)
    return f"{in_a_line(said)}; {remedy}"


def of_refusal(answer: FetchResult) -> str:
    """An answer to the question for models that is not 200, and what to do about it."""
    told = f"status {answer.status}{_said(answer)}"
    return f"{told}; {_remedy(answer.status)}"


def of_first(answer: FetchResult) -> str:
    """An answer to a first request that all others would get too."""
    told = f"{answer.status}{_said(answer)}"
    return f"{told}; {_remedy(answer.status)}" if answer.status < 400 else told


def _said(answer: FetchResult) -> str:
    """Where a redirect leads, else what the body says; behind a colon, if there is anything."""
    where = find(answer.headers, b"location") if answer.status < 400 else None
    said = error_said(where or answer.body)
    return f": {said}" if said else ""


def _remedy(status: int) -> str:
    if status in {401, 403}:
        return f"give its key in the variable {KEY_VARIABLE}"
    if status in {404, 405, 410, 501}:
        return "it lists no models: name one with --model"
    if 300 <= status < 400:
        return "give the URL that it leads to"
    if status == 429 or status >= 500:
        return "it is overloaded or not ready: wait, and look at its log"
    return _IS_IT_ONE
