"""What is asked of the scheduler leaves class and priority as they were."""

import os
import sys
import threading

import pytest

from headrace.bench.waking import wake_in_time

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduler alone is asked")


def test_the_wish_keeps_class_and_priority():
    seen: list[tuple[int, int]] = []

    def asked() -> None:  # in a thread of its own, for it lasts as long as that
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 7)
        for _ in range(2):
            seen.append((os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)))
            wake_in_time()

    thread = threading.Thread(target=asked)
    thread.start()
    thread.join()
    assert seen == [(os.SCHED_OTHER, 7)] * 2
