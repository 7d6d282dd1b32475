"""One run of a load generator: its figures, the CPU of all its processes, its first request."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.generators import Figures, Generator, Workload
from benchmarks.processes import StartFailedError, end_on_signals
from headrace.edges.fleets.llamacpp_command import LlamaCppArguments
from headrace.edges.fleets.model_store import DEFAULT_MODEL_ID, fetch_default_model

LONGEST_S = 300.0
"""Of one run; what takes longer is ended."""
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that is over. `figures` is None where the tool failed; `error` says how."""

    requests: int
    wall_s: float
    cpu_s: float
    figures: Figures | None
    error: str = ""
    first_request_s: float | None = None

    def in_words(self) -> str:
        """For the progress."""
        if self.figures is None:
            return f"failed: {self.error}"
        found = self.figures
        first = (
            "" if self.first_request_s is None else f", first after {self.first_request_s:.1f} s"
        )
        return (
            f"{found.completed} of {self.requests}, {found.rate:.1f}/s, "
            f"TTFT p50 {found.ttft_p50_s * 1e3:.1f} p99 {found.ttft_p99_s * 1e3:.1f} ms, "
            f"TPOT p50 {found.tpot_p50_s * 1e3:.2f} ms, {self.cpu_s:.2f} s of CPU in "
            f"{self.wall_s:.1f} s{first}"
        )


def become_subreaper() -> None:
    """Have orphans of a tool become our children, so that their CPU time is counted, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def measure(generator: Generator, load: Workload, *, watch: bool = False) -> Outcome:
    """Run a tool once; with `watch` the engine is asked when the first request arrives."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as name:
        folder = Path(name)
        command = generator.command(load, folder)
        env = {**os.environ, "COLUMNS": "120", **generator.env}
        watcher = _FirstRequest(load.url) if watch else None
        before_s, started_s = _children_cpu_s(), time.monotonic()
        code, output, errors = _run(command, env, folder)
        wall_s, cpu_s = time.monotonic() - started_s, _children_cpu_s() - before_s
        first_s = None if watcher is None else watcher.stop(started_s)
        try:
            figures, error = generator.read(load, folder, output), ""
        except (OSError, ValueError, KeyError, IndexError, TypeError) as problem:
            last = (errors.strip().splitlines() or [""])[-1]
            figures, error = None, f"exit code {code}, {type(problem).__name__}: {last[:200]}"
    return Outcome(load.requests, wall_s, cpu_s, figures, error, first_s)


def _run(command: list[str], env: dict[str, str], folder: Path) -> tuple[int, str, str]:
    """Exit code, standard output, standard error; whatever it left running is ended."""
    end_on_signals()
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            pass  # what it printed so far says why
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    _reap_orphans()
    out_text, err_text = ((folder / name).read_text(errors="replace") for name in ("out", "err"))
    return process.returncode, out_text, err_text


def _reap_orphans() -> None:
    """Wait for children that nobody waits for; the engine, which runs on, is not touched."""
    deadline_s = time.monotonic() + 1.0
    while time.monotonic() < deadline_s:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            time.sleep(0.1)


def _children_cpu_s() -> float:
    """User and system time of all children that have ended and were waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _FirstRequest:
    """Asks the engine, in a thread, until it has had a request more."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/metrics"
        self._before = _prompt_tokens(self._url)
        self._at_s: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self, started_s: float) -> float | None:
        """Seconds from then to the first request; None if there was none."""
        self._ended.set()
        self._thread.join()
        return None if self._at_s is None else self._at_s - started_s

    def _watch(self) -> None:
        while not self._ended.wait(_POLL_S):
            if _prompt_tokens(self._url) > self._before:
                self._at_s = time.monotonic()
                return


def _prompt_tokens(url: str) -> float:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    found = re.search(r"^vllm:prompt_tokens_total\{[^}]*\} ([0-9.e+]+)", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@contextmanager
def llamacpp() -> Iterator[tuple[str, str]]:
    """A real replica of the model that `headrace up` serves: its address and the model's name."""
    arguments = LlamaCppArguments(
        model_path=fetch_default_model(),
        model_id=DEFAULT_MODEL_ID,
        slots=4,
        context_per_slot_tokens=2048,
        threads=1,
        prompt_cache_mib=64,
        embeddings=False,
    )
    end_on_signals()
    process = subprocess.Popen(
        arguments.command_line(),
        stdin=subprocess.PIPE,  # closes when we end, and the child with it
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        if not url:
            raise StartFailedError("the llama.cpp replica ended before it was ready")
        yield url, DEFAULT_MODEL_ID
    finally:
        process.kill()
        process.communicate()
