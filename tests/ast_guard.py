"""Keeps a fault of CPython 3.11 up to 3.11.7 and 3.12 up to 3.12.1 out of the test runs.

There, garbage collection in the middle of `ast.parse` can end in `SystemError: AST constructor
recursion depth mismatch` (CPython gh-106905). pytest parses when it rewrites asserts, at start and
for every test file, and when it shows a failure. So collection of garbage waits until the tests are
collected, and tracebacks are shown in the form that parses nothing.
"""

import gc
import sys

import pytest

_AFFECTED = sys.version_info < (3, 11, 8) or (3, 12) <= sys.version_info < (3, 12, 2)

if _AFFECTED:
    gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Show failures without parsing source."""
    if _AFFECTED and config.option.tbstyle == "auto":
        config.option.tbstyle = "native"


def pytest_collection_finish() -> None:
    """All asserts are rewritten by now, and what was collected stays to the end: no look for
    garbage need go through it.
    """
    gc.freeze()
    gc.enable()
