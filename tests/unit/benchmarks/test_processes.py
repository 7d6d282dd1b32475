"""What a benchmark starts does not outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.processes import running

ROOT = Path(__file__).resolve().parents[3]
IN_THE_MAIN_THREAD = """
import signal, sys
from benchmarks.processes import running
with running([sys.executable, "-c", "import signal; signal.pause()"]) as program:
    print(program.pid, flush=True)
    signal.pause()
"""
IN_A_LOOP = """
import asyncio, sys
from benchmarks.processes import running
async def main():
    with running([sys.executable, "-c", "import signal; signal.pause()"]) as program:
        print(program.pid, flush=True)
        await asyncio.sleep(3600)
asyncio.run(main())
"""
WORKERS = """
import signal
from concurrent.futures import ProcessPoolExecutor
from headrace.edges.end_with_parent import end_with_parent
import multiprocessing
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    pool = ProcessPoolExecutor(2, mp_context=context, initializer=end_with_parent)
    for each in [pool.submit(len, "ab"), pool.submit(len, "abc")]:
        each.result()
    print("at work", flush=True)
    signal.pause()
"""


@pytest.fixture
def hang_up_is_heard():
    """What `nohup` starts ignores it, and so does all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up_is_heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("script", [IN_THE_MAIN_THREAD, IN_A_LOOP], ids=["plain", "loop"])
def test_a_benchmark_that_is_told_to_end_ends_its_programs(script: str, number: int):
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE
    ) as benchmark:
        assert benchmark.stdout is not None
        program = int(benchmark.stdout.readline())
        benchmark.send_signal(number)
        code = benchmark.wait(60)
    try:
        with pytest.raises(ProcessLookupError):
            os.kill(program, 0)
    finally:
        with suppress(ProcessLookupError):
            os.kill(program, signal.SIGKILL)
    assert code == 128 + number


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_end_with_a_parent_that_is_killed(method: str, tmp_path):
    """They hold the pipe open that it prints to: its end is the end of them all."""
    script = tmp_path / "workers.py"
    script.write_text(WORKERS.format(method=method))
    with subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"at work\n"
        parent.kill()
        try:
            assert parent.communicate(timeout=60)[0] == b""
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)


def test_waits_are_those_of_the_program_and_its_children():
    naps = "import time; [time.sleep(0.001) for _ in range(40)]; print('up', flush=True)"
    script = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {naps + "; time.sleep(99)"!r}])
{naps}
child.wait()
"""
    with running([sys.executable, "-c", script]) as program:
        deadline_s = time.monotonic() + 60.0  # a hang guard
        while program.output().count("up") < 2:
            assert time.monotonic() < deadline_s, program.output()
            time.sleep(0.01)
        assert program.waits() >= 80
