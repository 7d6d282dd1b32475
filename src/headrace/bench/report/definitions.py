"""What each figure is, in the words that stand under every table of them."""

_TTFT = (
    "time to first token: from when the request was due to the first content, reasoning or tool "
    "call that arrived; an event that has only a role is none"
)
_TPOT = "time per output token, one figure per whole answer: (last − first token) / (tokens − 1)"
_ITL = (
    "inter-token latency: every gap between two tokens of whole answers; a chunk of several tokens "
    "is scaled to one"
)
_E2E = "from when the request was due to the end of its answer, whole answers only"

DEFINITIONS = (("TTFT", _TTFT), ("TPOT", _TPOT), ("ITL", _ITL), ("E2E", _E2E))
SHORT = "TTFT: due to first token; TPOT: (last − first token) / (tokens − 1), a figure per answer"
GOODPUT = (
    "goodput: requests that met every target of their tier, of all but those that left on purpose "
    "or were interrupted; what failed, was refused or was cut off is a miss"
)
PERCENTILES = "percentiles interpolate linearly between ranks"
DUE = "a request counts from when it was due, not from when the generator had sent it"
