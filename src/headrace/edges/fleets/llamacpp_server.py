"""One llama.cpp replica: the child process that the local fleet starts.

Standard output carries a single line, the address it serves at, once the model is loaded.
What the engine itself prints goes to standard error. It never outlives its parent: on Linux the
kernel kills it with the parent, elsewhere it ends when standard input closes.
"""

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from headrace.edges.fleets.parent import die_with_parent

_LOG_WARNINGS = 2  # llama.cpp's scale: 1 errors, 2 warnings, 3 also a line per request
_POOLING_MEAN = 1  # llama.h: one embedding per input, the mean over its tokens


def main() -> None:
    """Serve until SIGTERM, SIGINT or the end of the parent."""
    options = _options()
    # The default action ends the process at once. An orderly shutdown of the engine would wait
    # for running streams, and those the gateway has drained before it stops a replica.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    die_with_parent(options.parent)
    report = _claim_stdout()
    _server, address = _start(options)  # it serves for as long as it is referred to
    with report:
        report.write(f"{address}\n")
    sys.stdin.buffer.read()  # ends when the parent does
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m headrace.edges.fleets.llamacpp_server")
    parser.add_argument("--model", required=True, type=Path, help="GGUF file")
    parser.add_argument("--alias", required=True, help="model id that clients use")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--parallel", type=int, required=True, help="slots: sequences at once")
    parser.add_argument("--ctx", type=int, required=True, help="tokens of context over all slots")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache-ram-mib", type=int, default=64, help="for prompts of idle slots")
    parser.add_argument("--embeddings", action="store_true", help="answer /v1/embeddings as well")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="pid to end with")
    return parser.parse_args()


def _claim_stdout() -> TextIO:
    """Keep standard output for the report; what the engine prints there goes to the log."""
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return report


def _start(options: argparse.Namespace) -> tuple[object, str]:
    """Load the model and start to listen; the engine and its base URL, once it is ready."""
    # Imported late because it takes a while, and by name because it has no type stubs.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.alias}
    params.hostnames = [options.host]
    params.port = options.port
    params.n_parallel = options.parallel
    params.n_ctx = options.ctx
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.cache_ram_mib = options.cache_ram_mib
    params.verbosity = _LOG_WARNINGS
    params.use_jinja = True
    params.endpoint_metrics = True
    params.endpoint_props = True
    params.endpoint_slots = True
    if options.embeddings:
        params.embedding = True
        params.pooling_type = _POOLING_MEAN
    server = xllamacpp.Server(params)
    return server, server.listening_address


if __name__ == "__main__":
    main()
