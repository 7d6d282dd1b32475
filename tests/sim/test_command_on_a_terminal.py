"""`headrace simulate` as a person runs it: bars on a terminal, and Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.unit.simulator.parts import trace

COMMAND = (sys.executable, "-m", "headrace", "simulate", "--replicas", "3", "--jobs", "2")


def made(folder: Path, requests: int) -> Path:
    path = folder / "made.jsonl"
    lines = [
        json.dumps(
            {
                "timestamp": request.arrival_s,
                "input_length": request.input_tokens,
                "output_length": request.output_tokens,
            }
        )
        for request in trace(requests).requests
    ]
    path.write_text("\n".join(lines))
    return path


def test_every_policy_gets_a_bar_and_a_line(tmp_path):
    file = made(tmp_path, 1000)
    policies = ["seconds", "round_robin", "least_requests", "power_of_two"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "--trace", str(file), "--policies", ",".join(policies), "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(theirs)
        shown = read_all(ours)
        assert process.stdout is not None
        runs = json.loads(process.stdout.read())["runs"]
    assert process.returncode == 0
    assert [run["policy"] for run in runs] == policies
    for policy in policies:
        assert f"✓ {policy}: 1,000 requests in" in shown
    assert "━" in shown


def test_an_interrupt_ends_it_quietly(tmp_path):
    file = made(tmp_path, 3000)  # enough for it to be at work still
    with subprocess.Popen(
        [*COMMAND, "--trace", str(file), "--speed", "0.01"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()  # the first step has begun
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert b"Traceback" not in first + rest


def test_a_run_that_is_told_to_end_leaves_no_process_behind(tmp_path):
    """Those that play hold its error stream open: its end is the end of them all."""
    file = made(tmp_path, 3000)  # enough for it to be at work still
    with subprocess.Popen(
        [*COMMAND, "--trace", str(file), "--speed", "0.01"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the first step has begun
        process.terminate()
        try:
            process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_an_interrupt_of_a_process_that_has_just_begun_is_quiet_too():
    """As where the second one is still starting when the first has something to show."""
    script = """
import os, signal
from concurrent.futures.process import BrokenProcessPool
from headrace.simulator.side_by_side import side_by_side
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    list(side_by_side(lambda name, note: name, ["a", "b"], processes=2, report=lambda *_: None))
except BrokenProcessPool:
    print("interrupted")
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def read_all(descriptor: int) -> str:
    """What a terminal shows until its last writer is gone."""
    shown = b""
    try:
        while piece := os.read(descriptor, 65536):
            shown += piece
    except OSError:  # how Linux tells the end
        pass
    os.close(descriptor)
    return shown.decode()
