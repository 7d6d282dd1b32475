"""A request that goes well reads no member off an enum: on CPython 3.11 that costs five calls."""

import sys
from enum import EnumType
from pathlib import Path

import headrace.core
from tests.unit.core.driver import Driver

CORE = str(Path(headrace.core.__file__).parent)


def test_the_core_has_the_members_at_hand_that_each_request_is_compared_with(monkeypatch):
    driver = Driver()
    driver.add("a", "b")
    driver.complete(driver.dispatched(streamed=False).attempt)  # names are looked up once
    read = []

    def noting(cls, name):
        caller = sys._getframe(1).f_code
        if name.isupper() and caller.co_filename.startswith(CORE):
            read.append((Path(caller.co_filename).name, caller.co_name, name))
        return type.__getattribute__(cls, name)

    monkeypatch.setattr(EnumType, "__getattribute__", noting, raising=False)
    attempt = driver.dispatched(streamed=False).attempt
    driver.complete(attempt)
    assert not read
