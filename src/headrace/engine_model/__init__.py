"""WHAT AN ENGINE DOES, pure: batching, paged KV and prefix cache in virtual time.

`EngineModel` is the machine, `EngineSpec` its numbers, `profiles` gives those of known GPUs and
models. No clock, no I/O: time comes in as ``now``.
"""

from headrace.engine_model.engine import EngineModel
from headrace.engine_model.jobs import (
    BlocksRemoved,
    BlocksStored,
    Finished,
    FirstToken,
    Happening,
    Job,
)
from headrace.engine_model.spec import EngineSpec

__all__ = [
    "BlocksRemoved",
    "BlocksStored",
    "EngineModel",
    "EngineSpec",
    "Finished",
    "FirstToken",
    "Happening",
    "Job",
]
