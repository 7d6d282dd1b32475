"""What is read of programs under measurement."""

import sys
import time

import pytest

from benchmarks.processes import running

BURNS = """
import threading, time

def burn():
    while time.thread_time() < 0.03:
        pass

thread = threading.Thread(target=burn)
thread.start()
thread.join()
"""
PARENT = f"""{BURNS}
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
of_child = int(child.stdout.readline())
print(time.process_time_ns() + of_child, flush=True)
child.wait()
"""
CHILD = f"""{BURNS}
print(time.process_time_ns(), flush=True)
threading.Event().wait()
"""


def told(program) -> str:
    deadline_s = time.monotonic() + 30
    while not program.output().endswith("\n"):
        program.check()
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return program.output()


def test_cpu_is_that_of_ended_threads_and_of_children_too():
    with running([sys.executable, "-c", PARENT, CHILD]) as program:
        used_ns = int(told(program))
        assert program.cpu_s() >= used_ns / 1e9


def test_cpu_is_finer_than_a_tick_of_the_kernel():
    with running([sys.executable, "-c", CHILD]) as program:
        told(program)
        assert round(program.cpu_s() * 1e9) % 10_000_000 != 0


def test_a_process_that_is_gone_has_no_clock():
    with running([sys.executable, "-c", "pass"]) as program:
        program._process.wait()
        with pytest.raises(OSError, match="CPU clock"):
            program.cpu_s()
