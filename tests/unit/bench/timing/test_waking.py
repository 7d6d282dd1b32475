"""What is asked of the scheduler is had, and leaves class and priority as they were."""

import ctypes
import os
import platform
import re
import sys
import threading

import pytest

from headrace.bench.timing.waking import SCHED_ATTR, SLICE_NS, wake_in_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduler alone is asked")
SYS_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}


def in_a_thread(seen: list[tuple[int, int, bool, int]]) -> None:
    """Class, priority and slice before and after the wish, which lasts as long as its thread."""

    def look(is_granted: bool) -> None:
        policy, nice = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
        seen.append((policy, nice, is_granted, slice_ns()))

    def asked() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 7)
        look(False)
        look(wake_in_time())

    thread = threading.Thread(target=asked)
    thread.start()
    thread.join()


def slice_ns() -> int:
    """Of the calling thread; 0: not to be read here."""
    number = SYS_SCHED_GETATTR.get(platform.machine())
    if number is None:
        return 0
    room = ctypes.create_string_buffer(SCHED_ATTR.size)
    if ctypes.CDLL(None).syscall(number, 0, room, SCHED_ATTR.size, 0):
        return 0
    return SCHED_ATTR.unpack(room.raw)[5]


def test_the_wish_keeps_class_and_priority():
    seen: list[tuple[int, int, bool, int]] = []
    in_a_thread(seen)
    assert [(policy, nice) for policy, nice, _, _ in seen] == [(os.SCHED_OTHER, 7)] * 2


def test_the_slice_is_granted():
    version = re.match(r"(\d+)\.(\d+)", platform.release())
    if version is None or tuple(map(int, version.groups())) < (6, 12):
        pytest.skip(f"Linux {platform.release()} takes the wish and changes nothing: 6.12 does")
    if platform.machine() not in SYS_SCHED_GETATTR:
        pytest.skip(f"the system call's number on {platform.machine()} is not known here")
    seen: list[tuple[int, int, bool, int]] = []
    in_a_thread(seen)
    assert seen[-1][2:] == (True, SLICE_NS)
