"""Settings of a compiled module are described by the source that lies beside it."""

import inspect
from pathlib import Path

import pytest

from headrace.config import shapes
from headrace.core import retries
from headrace.core.retries import RetrySettings


def test_a_compiled_class_is_described_by_the_source_beside_it(monkeypatch: pytest.MonkeyPatch):
    described = shapes.attribute_docs(RetrySettings)
    source = Path(str(retries.__file__))
    stem = source.name.partition(".")[0]
    asked: list[type] = []

    def no_source(cls: type) -> str:
        asked.append(cls)
        raise OSError("source code not available")

    def extension(_cls: type) -> str:
        return str(source.with_name(f"{stem}.cpython-311-x86_64-linux-gnu.so"))

    shapes.source_of.cache_clear()
    monkeypatch.setattr(inspect, "getsource", no_source)
    monkeypatch.setattr(inspect, "getfile", extension)
    try:
        assert shapes.attribute_docs(RetrySettings) == described != {}
        assert asked == [RetrySettings]
    finally:
        shapes.source_of.cache_clear()
